"""The public keys of access tokens, for services that verify them by themselves (RFC 7517)."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from ..core import context
from ..core.errors import NotFound
from .api import Answer, Blueprint
from .guard import public

blp = Blueprint("jwks", __name__, description="Public keys of access tokens")


class PublicKeySchema(Answer):
    """A JSON Web Key; one of P-256 has `y`, one of Ed25519 has not."""

    sometimes = frozenset({"y"})

    kty = fields.String(metadata={"example": "OKP"})
    crv = fields.String(metadata={"example": "Ed25519"})
    x = fields.String(metadata={"example": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    y = fields.String()
    kid = fields.String(
        metadata={
            "description": "The thumbprint of RFC 7638.",
            "example": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        },
    )
    use = fields.String(metadata={"example": "sig"})
    alg = fields.String(metadata={"example": "EdDSA"})


class PublicKeysSchema(Answer):
    """A JSON Web Key Set."""

    keys = fields.List(fields.Nested(PublicKeySchema()))


@blp.route("/.well-known/jwks.json")
@public
@blp.fails("not_found")
@blp.response(200, PublicKeysSchema)
def public_keys() -> tuple[dict[str, Any], dict[str, str]]:
    """The public keys that verify access tokens; none where a secret signs them (HS256)"""
    keys = context.service().access_tokens.public_keys
    if not keys:
        raise NotFound("Access tokens are signed with a secret here; there are no public keys.")
    return {"keys": keys}, {"Cache-Control": "public, max-age=300"}
