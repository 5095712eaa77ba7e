"""Schemas of the usage route."""

from marshmallow import fields

from ..web.api import EnumString, ResponseSchema, Schema, Timestamp


class UsageQuery(Schema):
    """Which counts to return, and how to sum them."""

    since = Timestamp(
        metadata={
            "description": "Rounded down to an interval; by default the last 24 hours or 30 days."
        }
    )
    until = Timestamp(metadata={"description": "Rounded up to an interval; by default now."})
    interval = EnumString(
        "UsageInterval",
        ("hour", "day"),
        metadata={
            "description": "In UTC: `hour` (default), for up to 31 days, or `day`, for up to 400."
        },
    )


class UsedSchema(ResponseSchema):
    """The decisions about a key in one hour or day."""

    start = Timestamp(
        metadata={"example": "2026-11-23T09:00:00Z", "description": "When the hour or day begins."}
    )
    valid = fields.Integer(metadata={"example": 120, "description": "How often it was valid."})
    denied = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={
            "example": {"rate_limited": 3},
            "description": "How often it was refused, by code.",
        },
    )


class UsageSchema(ResponseSchema):
    """The decisions about a key."""

    items = fields.List(
        fields.Nested(UsedSchema()),
        metadata={
            "description": "Oldest first, without intervals in which the key was not presented."
        },
    )
