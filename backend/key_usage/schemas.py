"""Schemas of the usage route."""

from marshmallow import fields

from ..web.fields import EnumString, ResponseSchema, Schema, Timestamp, about


class UsageQuery(Schema):
    """Which counts to return, and how to add them up."""

    since = Timestamp(
        metadata=about("Rounded down to an hour or day; by default 24 hours or 30 days ago.")
    )
    until = Timestamp(metadata=about("Rounded up to an hour or day; by default now."))
    interval = EnumString(
        "UsageInterval",
        ("hour", "day"),
        metadata=about("In UTC: `hour` (default) for up to 31 days, or `day` for up to 400."),
    )


class UsedSchema(ResponseSchema):
    """How often a key was used and refused in one hour or day."""

    start = Timestamp(metadata=about("When the hour or day begins.", "2026-11-23T09:00:00Z"))
    valid = fields.Integer(metadata=about("How often it was accepted.", 120))
    denied = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata=about("How often it was refused, by code.", {"rate_limited": 3}),
    )


class UsageSchema(ResponseSchema):
    """How often a key was used and refused."""

    items = fields.List(
        fields.Nested(UsedSchema()),
        metadata=about("The hours or days in which the key was presented, oldest first."),
    )
