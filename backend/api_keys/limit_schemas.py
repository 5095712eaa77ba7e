"""Schemas of a key's rate limit and quota."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from ..web.fields import EnumString, ResponseSchema, Schema, StrictInteger, about
from . import quotas
from .quotas import INTERVALS

MOST_QUOTA = 1_000_000_000_000


def _uses(**kwargs: Any) -> StrictInteger:
    shown = about("How many uses are allowed in a window.", 100)
    return StrictInteger(validate=validate.Range(1, 1_000_000), metadata=shown, **kwargs)


def _window(**kwargs: Any) -> StrictInteger:
    shown = about("How long a window is, in seconds.", 60)
    return StrictInteger(validate=validate.Range(1, 86_400), metadata=shown, **kwargs)


class RateLimitSchema(Schema):
    """How often a key may be used."""

    limit = _uses(required=True)
    window_seconds = _window(required=True)


class ChangeRateLimitSchema(Schema):
    """How often a key may be used; members that you do not send stay unchanged."""

    limit = _uses()
    window_seconds = _window()


def rate_limit(schema: type[Schema] = RateLimitSchema) -> fields.Nested:
    """Return the field for the rate limit."""
    shown = about("The key's own rate limit; null: RATE_LIMIT_DEFAULT applies.")
    return fields.Nested(schema(), allow_none=True, metadata=shown)


def _amount(least: int, description: str, **kwargs: Any) -> StrictInteger:
    return StrictInteger(
        validate=validate.Range(least, MOST_QUOTA), metadata=about(description, 10_000), **kwargs
    )


def _refill_interval() -> EnumString:
    when = "When it is refilled, at 00:00 UTC: every day, or on the first of the month."
    shown = about(when, "monthly")
    return EnumString("RefillInterval", INTERVALS, allow_none=True, metadata=shown)


class ChangeQuotaSchema(Schema):
    """A quota on the use of a key; members that you do not send stay unchanged."""

    remaining = _amount(
        0, "How much is left now; by default, a new quota starts at `refill_amount`."
    )
    refill_amount = _amount(1, "How much is left after each refill.", allow_none=True)
    refill_interval = _refill_interval()


class SetQuotaSchema(ChangeQuotaSchema):
    """A quota on the use of a key."""

    @validates_schema
    def _whole(self, data: dict, **kwargs: object) -> None:
        if fault := quotas.fault(data):
            member, sentence = fault
            raise ValidationError(sentence, member)


class QuotaSchema(ResponseSchema):
    """A quota on the use of a key."""

    remaining = _amount(0, "How much is left now.")
    refill_amount = _amount(1, "How much is left after each refill.", allow_none=True)
    refill_interval = _refill_interval()


def quota(schema: type[Schema] | type[ResponseSchema] = SetQuotaSchema) -> fields.Nested:
    """Return the field for the quota."""
    shown = about("The key's quota; null: unlimited.")
    return fields.Nested(schema(), allow_none=True, metadata=shown)
