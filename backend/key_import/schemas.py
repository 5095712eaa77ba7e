"""The schema of a line of an imported file."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from ..api_keys.schemas import CreateKeySchema
from ..crypto.keyring import read_digest
from ..web.fields import Schema, Timestamp, about


class Digest(fields.String):
    """Another system's digest of a key; see keyring.read_digest."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return read_digest(value if isinstance(value, str) else "")
        except ValueError:
            raise ValidationError(
                "Must be the SHA-256 of a key in hex or base64url, or sha512$$ and its SHA-512."
            ) from None


class ImportKeySchema(CreateKeySchema):
    """Import a key from another system, which stores only a digest of its text."""

    class Meta(Schema.Meta):
        exclude = ("owner_id",)

    owner = fields.String(required=True, metadata=about("The owner's username or e-mail address."))
    digest = Digest(required=True, metadata=about("The digest of the key's text."))
    hint = fields.String(
        validate=validate.Length(1, 32), metadata=about("Text that helps people recognise the key.")
    )
    created_at = Timestamp(metadata=about("When the key was created; by default now."))
