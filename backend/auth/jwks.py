"""What clients look up by themselves: the public keys of access tokens (RFC 7517), and where tokens
are introspected and revoked (RFC 8414)."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from .. import services
from ..core.errors import NotFound
from ..web.access import public
from ..web.api import Blueprint, ResponseSchema

blp = Blueprint("jwks", __name__, description="Public keys of access tokens")


class PublicKeySchema(ResponseSchema):
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


class PublicKeysSchema(ResponseSchema):
    """A JSON Web Key Set."""

    keys = fields.List(fields.Nested(PublicKeySchema()))


class MetadataSchema(ResponseSchema):
    """Where an OAuth client finds what it needs. `jwks_uri` only where there are public keys."""

    sometimes = frozenset({"jwks_uri"})

    issuer = fields.String(metadata={"example": "https://accounts.example.com"})
    response_types_supported = fields.List(fields.String(), metadata={"example": []})
    jwks_uri = fields.String(
        metadata={"example": "https://accounts.example.com/.well-known/jwks.json"}
    )
    introspection_endpoint = fields.String(
        metadata={"example": "https://accounts.example.com/v1/auth/introspect"}
    )
    introspection_endpoint_auth_methods_supported = fields.List(
        fields.String(), metadata={"example": ["client_secret_basic", "client_secret_post"]}
    )
    revocation_endpoint = fields.String(
        metadata={"example": "https://accounts.example.com/v1/auth/revoke"}
    )
    revocation_endpoint_auth_methods_supported = fields.List(
        fields.String(), metadata={"example": ["none"]}
    )


@blp.route("/.well-known/jwks.json")
@public
@blp.fails("not_found")
@blp.response(200, PublicKeysSchema)
def public_keys() -> tuple[dict[str, Any], dict[str, str]]:
    """The public keys that verify access tokens; none where a secret signs them (HS256)"""
    keys = services.current().access_tokens.public_keys
    if not keys:
        raise NotFound("Access tokens are signed with a secret here; there are no public keys.")
    return {"keys": keys}, {"Cache-Control": "public, max-age=300"}


@blp.route("/.well-known/oauth-authorization-server")
@public
@blp.response(200, MetadataSchema)
def metadata() -> dict[str, Any]:
    """Where tokens are introspected and revoked, for OAuth clients (RFC 8414)"""
    service = services.current()
    url = service.settings.public_url
    found: dict[str, Any] = {
        "issuer": service.settings.jwt_issuer,
        "response_types_supported": [],
        "introspection_endpoint": f"{url}/v1/auth/introspect",
        "introspection_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
        ],
        "revocation_endpoint": f"{url}/v1/auth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
    }
    if service.access_tokens.public_keys:
        found["jwks_uri"] = f"{url}/.well-known/jwks.json"
    return found
