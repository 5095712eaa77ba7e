"""Schemas of the audit route and the export."""

from marshmallow import fields

from ..web.api import PageQuery
from ..web.fields import EnumString, Id, ResponseSchema, Timestamp, about
from .service import ACTIONS, OUTCOMES

_USER = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"


def _action() -> EnumString:
    return EnumString("AuditAction", ACTIONS, metadata=about("What was done.", "user.update"))


class AuditEventSchema(ResponseSchema):
    """Something that was done or attempted."""

    id = Id(metadata=about("The event's id.", "0192d3a4-aaaa-7d8e-9f01-23456789abcd"))
    at = Timestamp(
        attribute="created_at", metadata=about("When it happened.", "2026-11-23T09:00:00Z")
    )
    action = _action()
    outcome = EnumString(
        "AuditOutcome", OUTCOMES, metadata=about("Whether it succeeded.", "success")
    )
    actor_id = Id(allow_none=True, metadata=about("The user who did it; null if unknown.", _USER))
    target_type = fields.String(
        allow_none=True,
        metadata=about("The kind of target: `user`, `session` or `api_key`.", "user"),
    )
    target_id = Id(allow_none=True, metadata=about("The id of the target.", _USER))
    ip = fields.String(allow_none=True, metadata=about("The client's IP address.", "192.0.2.1"))
    request_id = fields.String(
        allow_none=True, metadata=about("The request's id in the log.", "8f14e45fceea167a")
    )
    detail = fields.Dict(
        attribute="facts",
        metadata=about(
            "Details of the action; `changed` lists the fields that it changed.",
            {"changed": ["role"], "role": "user"},
        ),
    )


class SealedEventSchema(AuditEventSchema):
    """An event and its place in the chain; `sequence` and `seal` are null until it is sealed."""

    sequence = fields.Integer(allow_none=True, metadata=about("The event's number in the chain."))
    seal = fields.String(
        attribute="place",
        allow_none=True,
        metadata=about("The seal, which covers all events before it."),
    )


class AuditQuery(PageQuery):
    """Which events to list."""

    actor_id = Id(metadata=about("Only events caused by this user or their keys."))
    action = _action()
    target_id = Id(metadata=about("Only events about this user, key or session."))
    since = Timestamp(metadata=about("Only events at or after this time."))
    until = Timestamp(metadata=about("Only events before this time."))
