"""Schemas of the audit route and the export."""

from marshmallow import fields

from ..web.api import EnumString, Id, PageQuery, ResponseSchema, Timestamp
from .service import ACTIONS, OUTCOMES

_USER = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"


def _action() -> EnumString:
    about = {"example": "user.update", "description": "What was done."}
    return EnumString("AuditAction", ACTIONS, metadata=about)


class AuditEventSchema(ResponseSchema):
    """Something that was done, or attempted."""

    id = Id(
        metadata={
            "example": "0192d3a4-aaaa-7d8e-9f01-23456789abcd",
            "description": "The event's id.",
        }
    )
    at = Timestamp(
        attribute="created_at",
        metadata={"example": "2026-11-23T09:00:00Z", "description": "When it happened."},
    )
    action = _action()
    outcome = EnumString(
        "AuditOutcome",
        OUTCOMES,
        metadata={"example": "success", "description": "Whether it succeeded."},
    )
    actor_id = Id(
        allow_none=True,
        metadata={"example": _USER, "description": "The user who did it; null if unknown."},
    )
    target_type = fields.String(
        allow_none=True,
        metadata={
            "example": "user",
            "description": "What it was done to: `user`, `session` or `api_key`.",
        },
    )
    target_id = Id(
        allow_none=True, metadata={"example": _USER, "description": "The id of the target."}
    )
    ip = fields.String(
        allow_none=True,
        metadata={"example": "192.0.2.1", "description": "The address of the request."},
    )
    request_id = fields.String(
        allow_none=True,
        metadata={"example": "8f14e45fceea167a", "description": "The request's id in the log."},
    )
    detail = fields.Dict(
        attribute="facts",
        metadata={
            "example": {"changed": ["role"], "role": "user"},
            "description": "Details of the action; `changed` lists the fields of an update.",
        },
    )


class SealedEventSchema(AuditEventSchema):
    """An event and its place in the chain; `sequence` and `seal` are null until it is sealed."""

    sequence = fields.Integer(
        allow_none=True, metadata={"description": "The event's number in the chain."}
    )
    seal = fields.String(
        attribute="place",
        allow_none=True,
        metadata={"description": "The seal, which covers all events before it."},
    )


class AuditQuery(PageQuery):
    """Which events to list."""

    actor_id = Id(metadata={"description": "Events caused by this user or one of their keys."})
    action = _action()
    target_id = Id(metadata={"description": "Events about this user, key or session."})
    since = Timestamp(metadata={"description": "Events at or after this time."})
    until = Timestamp(metadata={"description": "Events before this time."})
