"""Public keys (RFC 7517), and metadata for OAuth clients (RFC 8414). Skip it on a first reading."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from .. import services
from ..core.errors import NotFound
from ..web.access import public
from ..web.api import Blueprint
from ..web.fields import ResponseSchema, about

blp = Blueprint("jwks", __name__, description="Public keys and metadata")


class PublicKeySchema(ResponseSchema):
    """A JSON Web Key. Only P-256 keys have `y`."""

    sometimes = frozenset({"y"})

    kty = fields.String(metadata=about("The key type: OKP or EC.", "OKP"))
    crv = fields.String(metadata=about("The curve: Ed25519 or P-256.", "Ed25519"))
    x = fields.String(
        metadata=about(
            "The public key; for P-256, its x coordinate.",
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        )
    )
    y = fields.String(metadata=about("P-256 only: the y coordinate."))
    kid = fields.String(
        metadata=about(
            "The key's id: its thumbprint (RFC 7638).",
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        )
    )
    use = fields.String(metadata=about("Always `sig`: signatures.", "sig"))
    alg = fields.String(metadata=about("The algorithm: EdDSA or ES256.", "EdDSA"))


class PublicKeysSchema(ResponseSchema):
    """A JSON Web Key Set."""

    keys = fields.List(
        fields.Nested(PublicKeySchema()), metadata=about("The keys that verify access tokens.")
    )


class MetadataSchema(ResponseSchema):
    """OAuth server metadata. `jwks_uri` is present only if there are public keys."""

    sometimes = frozenset({"jwks_uri"})

    issuer = fields.String(
        metadata=about(
            "The issuer of access tokens: their claim `iss`.", "https://accounts.example.com"
        )
    )
    response_types_supported = fields.List(
        fields.String(), metadata=about("Always empty: there is no authorization page.", [])
    )
    jwks_uri = fields.String(
        metadata=about(
            "The URL of the public keys.", "https://accounts.example.com/.well-known/jwks.json"
        )
    )
    introspection_endpoint = fields.String(
        metadata=about(
            "The URL to introspect tokens (RFC 7662).",
            "https://accounts.example.com/v1/auth/introspect",
        )
    )
    introspection_endpoint_auth_methods_supported = fields.List(
        fields.String(),
        metadata=about(
            "How clients authenticate to introspect.", ["client_secret_basic", "client_secret_post"]
        ),
    )
    revocation_endpoint = fields.String(
        metadata=about(
            "The URL to revoke tokens (RFC 7009).", "https://accounts.example.com/v1/auth/revoke"
        )
    )
    revocation_endpoint_auth_methods_supported = fields.List(
        fields.String(), metadata=about("How clients authenticate to revoke: not at all.", ["none"])
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
