"""The fields of a key: name, scopes, addresses, metadata, expiry."""

import json
from typing import Any

from marshmallow import ValidationError, fields, validate

from ..web.fields import Id, List, Pattern, Timestamp, about
from .networks import parse_address, parse_network
from .scopes import PATTERN

KEY_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"
KEY = "bt_2mVq8Zr4KxY7nB1cWd9sLf3gHj6kPt5u0Q9mZc"


def name(**kwargs: Any) -> fields.String:
    """Return the field for the key's name."""
    return fields.String(
        validate=validate.Length(1, 100),
        metadata=about("A name for people to read.", "deploys"),
        **kwargs,
    )


def description(**kwargs: Any) -> fields.String:
    """Return the field for the description."""
    return fields.String(
        validate=validate.Length(max=500),
        allow_none=True,
        metadata=about("Notes about the key.", "Used by the deployment pipeline"),
        **kwargs,
    )


def scopes(description: str = "What the key may do.", **kwargs: Any) -> List:
    """Return the field for scopes."""
    scope = fields.String(validate=Pattern(PATTERN, "Must have the form area:act or area:*."))
    return List(scope, most=50, metadata=about(description, ["reports:read"]), **kwargs)


_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


class Metadata(fields.Dict):
    """A JSON object of at most 4,096 bytes when written compactly."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        size = 0
        for part in _COMPACT.iterencode(value):
            size += len(part.encode())
            if size > 4096:
                raise ValidationError("At most 4096 bytes as compact JSON.")
        return value


class CIDR(fields.String):
    """An IPv4 or IPv6 address block without host bits; a single address is a block of one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return str(parse_network(value if isinstance(value, str) else ""))
        except ValueError:
            raise ValidationError("Must be an address block such as 192.0.2.0/24.") from None


class Address(fields.String):
    """An IP address."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return str(parse_address(value if isinstance(value, str) else ""))
        except ValueError:
            raise ValidationError("Must be an IP address.") from None


def metadata() -> Metadata:
    """Return the field for metadata."""
    shown = about("Any data of yours, up to 4096 bytes of JSON.", {"team": "search"})
    return Metadata(metadata=shown)


def allowed_ips() -> List:
    """Return the field for the addresses that may use the key."""
    shown = about(
        "Address blocks, such as 192.0.2.0/24, from which the key may be used; empty: all.", []
    )
    return List(CIDR(), most=50, metadata=shown)


def expires_at() -> Timestamp:
    """Return the field for when the key expires."""
    shown = about("When the key expires, such as 2027-11-23T09:00:00Z; null: never.", None)
    return Timestamp(allow_none=True, metadata=shown)


def api_key_text(**kwargs: Any) -> fields.String:
    """Return the field for the text of a key."""
    return fields.String(metadata=about("The text of the key.", KEY), **kwargs)


class OwnerId(fields.String):
    """A user's id, or `any`."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return "any" if value == "any" else Id().deserialize(value)
