"""What goes in and out of the audit route, and of the export."""

from marshmallow import fields

from ..web.api import EnumString, Id, PageQuery, ResponseSchema, Timestamp
from .service import ACTIONS, OUTCOMES

_USER = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"


def _action() -> EnumString:
    return EnumString("AuditAction", ACTIONS, metadata={"example": "user.update"})


class AuditEventSchema(ResponseSchema):
    """Something that somebody did, or tried to."""

    id = Id(metadata={"example": "0192d3a4-aaaa-7d8e-9f01-23456789abcd"})
    at = Timestamp(attribute="created_at", metadata={"example": "2026-11-23T09:00:00Z"})
    action = _action()
    outcome = EnumString("AuditOutcome", OUTCOMES, metadata={"example": "success"})
    actor_id = Id(
        allow_none=True,
        metadata={"example": _USER, "description": "The user; null for nobody known."},
    )
    target_type = fields.String(allow_none=True, metadata={"example": "user"})
    target_id = Id(allow_none=True, metadata={"example": _USER})
    ip = fields.String(allow_none=True, metadata={"example": "192.0.2.1"})
    request_id = fields.String(allow_none=True, metadata={"example": "8f14e45fceea167a"})
    detail = fields.Dict(
        attribute="facts",
        metadata={"example": {"fields": ["role"]}, "description": "More, by action."},
    )


class SealedEventSchema(AuditEventSchema):
    """An event with its place in the chain; both are null until it is sealed."""

    sequence = fields.Integer(allow_none=True)
    seal = fields.String(attribute="place", allow_none=True)


class AuditQuery(PageQuery):
    """Which events to list."""

    actor_id = Id(metadata={"description": "Of this user, or of a key of theirs."})
    action = _action()
    target_id = Id(metadata={"description": "Done to this user, key or session."})
    since = Timestamp(metadata={"description": "From this time on."})
    until = Timestamp(metadata={"description": "Before this time."})
