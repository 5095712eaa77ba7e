"""Schemas and fields: marshmallow, made strict. Every subject writes its schemas with these."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import marshmallow as ma
from marshmallow import fields, validate

from ..crypto.keyring import from_base64url, to_base64url
from .parsing import MAX_FAULTS

ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


class Schema(ma.Schema):
    """Base of request schemas. Refuses fields that are not declared."""

    class Meta:
        unknown = ma.RAISE

    def on_bind_field(self, field_name: str, field_obj: fields.Field) -> None:
        """Raise TypeError for a list without a maximum number of items."""
        if isinstance(field_obj, fields.List) and not isinstance(field_obj, List):
            raise TypeError(
                f"{field_name}: in a request, use List with the maximum number of items"
            )

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Load like marshmallow, but report only some of 100,000 unknown members."""
        known = self.fields
        if isinstance(data, dict) and len(data) > len(known) + MAX_FAULTS:
            unknown = itertools.filterfalse(known.__contains__, data)
            some = itertools.islice(unknown, MAX_FAULTS)
            data = {name: data[name] for name in (*known, *some) if name in data}
        try:
            return super().load(data, **kwargs)
        except ma.ValidationError as error:
            # Break the reference cycle of error and traceback, which would keep the body in memory.
            raise error.with_traceback(None) from None


class ResponseSchema(ma.Schema):
    """Base of response schemas. All members are always present, except those in `sometimes`.

    The documentation does not exclude other members, so that new ones can be added.
    """

    sometimes: frozenset[str] = frozenset()

    class Meta:
        unknown = ma.EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field) -> None:
        """Document the field as required. Raises TypeError if `_serialize` does not support it."""
        _require_zone(field_obj, f"{type(self).__name__}.{field_name}")
        computed = not field_obj._CHECK_ATTRIBUTE  # a Function, Method or Constant
        if computed or field_obj.data_key or field_obj.dump_default is not ma.missing:
            raise TypeError(f"{field_name}: use a plain member of what the view returns")
        field_obj.required = field_name not in self.sometimes

    def _serialize(self, obj: Any, *, many: bool = False) -> Any:
        """Serialize like marshmallow, but without data keys, defaults and functions.

        This saves 15 us for an account.
        """
        if many:
            return [self._serialize(each) for each in obj]
        read = obj.get if isinstance(obj, dict) else functools.partial(getattr, obj)
        missing, dumped = ma.missing, {}
        for name, attribute, serialize in self._members:
            value = read(attribute, missing)
            if value is not missing:
                dumped[name] = serialize(value, name, obj)
        return dumped

    @functools.cached_property
    def _members(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """Return (name, attribute to read, function that serializes it) for each field."""
        named = self.dump_fields.items()
        return [(name, field.attribute or name, field._serialize) for name, field in named]


def _require_zone(field: fields.Field, name: str) -> None:
    """Raise TypeError for a field that could answer with a time without a zone."""
    for part in (field, getattr(field, "inner", None), getattr(field, "value_field", None)):
        if isinstance(part, fields.DateTime) and not isinstance(part, Timestamp):
            raise TypeError(f"{name}: use Timestamp, which always has a zone")


class Pattern(validate.Regexp):
    """Validates that the whole text matches `pattern`, which is documented with ^ and $."""

    def __init__(self, pattern: str, error: str) -> None:
        super().__init__(f"^({pattern})$", error=error)
        self._whole = re.compile(pattern)

    def __call__(self, value: Any) -> Any:
        """Return the value, or raise ValidationError."""
        if not self._whole.fullmatch(value):  # $ would let a line feed pass
            raise ma.ValidationError(str(self.error))
        return value


class List(fields.List):
    """A list of at most `most` items, which are validated only if there are no more."""

    def __init__(self, inner: fields.Field, *, most: int, **kwargs: Any) -> None:
        self._count = validate.Length(max=most)
        super().__init__(inner, validate=self._count, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            self._count(value)
        return super()._deserialize(value, *args, **kwargs)


class _OneOf(validate.OneOf):
    """Like the library's, for choices to which subjects add theirs until the app is built."""

    def _format_error(self, value: Any) -> str:
        self.choices_text = ", ".join(self.choices)
        return super()._format_error(value)


class EnumString(fields.String):
    """One of a few texts, documented once as a schema called `title`."""

    def __init__(self, title: str, choices: Iterable[str], **kwargs: Any) -> None:
        self.title = title
        super().__init__(validate=_OneOf(choices), **kwargs)


class StrictBoolean(fields.Boolean):
    """true or false, not "yes" or 1."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryBoolean(fields.Boolean):
    """The text true or false."""

    truthy, falsy = {"true"}, {"false"}


class StrictInteger(fields.Integer):
    """A whole number, not 1.0, "1" or true."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


class QueryInteger(fields.Integer):
    """A whole number in plain decimal digits."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not re.fullmatch("0|[1-9][0-9]{0,8}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Id(fields.UUID):
    """A UUID in lower case."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> UUID:
        if not isinstance(value, str) or not re.fullmatch(ID, value):
            raise self.make_error("invalid_uuid")
        return UUID(value)


class Timestamp(fields.AwareDateTime):
    """A time (RFC 3339); in responses always in UTC, with Z."""

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> str | None:
        return None if value is None else value.isoformat().replace("+00:00", "Z")

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or not _RFC3339.fullmatch(value):
            raise self.make_error("invalid", input=value, obj_type="datetime")
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.make_error("invalid", input=value, obj_type="datetime") from None


class Cursor(fields.String):
    """The id after which the next page starts, as 22 characters without a meaning to clients."""

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> str | None:
        return None if value is None else to_base64url(value.bytes)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        raw = from_base64url(value)
        if raw is None or len(raw) != 16:
            raise self.make_error("invalid")
        return UUID(bytes=raw)


def about(description: str, example: Any = ma.missing, **members: Any) -> dict[str, Any]:
    """Return the `metadata` of a field: its description, an example, other members of OpenAPI."""
    shown = {} if example is ma.missing else {"example": example}
    return {**shown, **members, "description": description}
