"""Public discovery: the keys that verify access tokens (RFC 7517), and the URLs to introspect and
revoke tokens (RFC 8414)."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from .. import services
from ..core.errors import NotFound
from ..web.access import public
from ..web.api import Blueprint, ResponseSchema

blp = Blueprint("jwks", __name__, description="Public keys and metadata")


class PublicKeySchema(ResponseSchema):
    """A JSON Web Key. Only P-256 keys have `y`."""

    sometimes = frozenset({"y"})

    kty = fields.String(metadata={"example": "OKP", "description": "The key type: OKP or EC."})
    crv = fields.String(
        metadata={"example": "Ed25519", "description": "The curve: Ed25519 or P-256."}
    )
    x = fields.String(
        metadata={
            "example": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "description": "The public key; for P-256, its x coordinate.",
        }
    )
    y = fields.String(metadata={"description": "P-256 only: the y coordinate."})
    kid = fields.String(
        metadata={
            "description": "The key's id: its thumbprint (RFC 7638).",
            "example": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        },
    )
    use = fields.String(metadata={"example": "sig", "description": "Always `sig`: signatures."})
    alg = fields.String(
        metadata={"example": "EdDSA", "description": "The algorithm: EdDSA or ES256."}
    )


class PublicKeysSchema(ResponseSchema):
    """A JSON Web Key Set."""

    keys = fields.List(
        fields.Nested(PublicKeySchema()),
        metadata={"description": "The keys that verify access tokens."},
    )


class MetadataSchema(ResponseSchema):
    """OAuth server metadata. `jwks_uri` is present only if there are public keys."""

    sometimes = frozenset({"jwks_uri"})

    issuer = fields.String(
        metadata={
            "example": "https://accounts.example.com",
            "description": "The issuer of access tokens: their claim `iss`.",
        }
    )
    response_types_supported = fields.List(
        fields.String(),
        metadata={"example": [], "description": "Always empty: there is no authorization page."},
    )
    jwks_uri = fields.String(
        metadata={
            "example": "https://accounts.example.com/.well-known/jwks.json",
            "description": "The URL of the public keys.",
        }
    )
    introspection_endpoint = fields.String(
        metadata={
            "example": "https://accounts.example.com/v1/auth/introspect",
            "description": "The URL to introspect tokens (RFC 7662).",
        }
    )
    introspection_endpoint_auth_methods_supported = fields.List(
        fields.String(),
        metadata={
            "example": ["client_secret_basic", "client_secret_post"],
            "description": "How clients authenticate to introspect.",
        },
    )
    revocation_endpoint = fields.String(
        metadata={
            "example": "https://accounts.example.com/v1/auth/revoke",
            "description": "The URL to revoke tokens (RFC 7009).",
        }
    )
    revocation_endpoint_auth_methods_supported = fields.List(
        fields.String(),
        metadata={
            "example": ["none"],
            "description": "How clients authenticate to revoke: not at all.",
        },
    )


@blp.route("/.well-known/jwks.json")
@public
@blp.fails("not_found")
@blp.response(200, PublicKeysSchema)
def public_keys() -> tuple[dict[str, Any], dict[str, str]]:
    """Get the public keys that verify access tokens

    Returns 404 if access tokens are signed with a secret (HS256). You may cache the answer for five
    minutes.
    """
    keys = services.current().access_tokens.public_keys
    if not keys:
        raise NotFound("Access tokens are signed with a secret; there are no public keys.")
    return {"keys": keys}, {"Cache-Control": "public, max-age=300"}


@blp.route("/.well-known/oauth-authorization-server")
@public
@blp.response(200, MetadataSchema)
def metadata() -> dict[str, Any]:
    """Get the metadata for OAuth clients (RFC 8414)

    Returns the URLs to introspect and revoke tokens and, if there are public keys, their URL.
    """
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
