"""Make the secrets of keys, and replace them while the old ones still work."""

from __future__ import annotations

from uuid import UUID

from .. import services
from ..core import clock
from ..core.errors import Conflict
from ..core.identity import Identity
from ..crypto import keyring
from ..db.database import atomic, count_by, new_id
from . import changes, permissions, queries, recording
from .models import ApiKey, ApiKeySecret


def new_secret() -> tuple[str, ApiKeySecret]:
    """Return a new random text, and the row to store for it."""
    ring = services.current().keyring
    text = ring.new_api_key()
    return text, secret_of(keyring.hint(text), *ring.digests(text)[0])


def secret_of(hint: str, secret_id: str, digest: str) -> ApiKeySecret:
    """Return the row to store for a text: its digest under this SECRET_KEY, and a hint."""
    return ApiKeySecret(id=new_id(), hint=hint, secret_id=secret_id, digest=digest)


def store_secret(key: ApiKey, secret: ApiKeySecret) -> None:
    """Store a new secret of the key."""
    secret.key = key
    secret.save(force_insert=True)


@atomic
def rotate(actor: Identity, key_id: UUID, *, grace_seconds: int = 86_400) -> ApiKey:
    """Give the key a new secret. Its text, `key.key`, is not stored and never shown again.

    The current secret stays valid until the new one is first used, and `grace_seconds` after that.
    An earlier new secret that was never used is replaced. Raises Conflict if the key is not active,
    and Forbidden if an administrator has disabled it.
    """
    key = queries.for_update(actor, key_id)
    permissions.require_holder(actor, key.owner)
    changes.require_not_disabled_by_admin(actor, key)
    permissions.require_within(actor, key)
    if key.status != "active":
        raise Conflict("conflict", f"The key is {key.status}; only an active key can be rotated.")
    text, secret = new_secret()
    key.pending = secret
    key.pending_secret, key.grace_seconds = secret.id, grace_seconds
    key.updated_at = clock.now()
    key.save()
    others = ApiKeySecret.id.not_in(key.accepted_secrets)
    ApiKeySecret.delete().where((ApiKeySecret.key == key) & others).execute()
    store_secret(key, secret)
    key.key = text
    recording.record(actor, "key.rotate", key, grace_seconds=grace_seconds)
    return key


def secrets_in_use() -> dict[str, int]:
    """Count the key secrets that depend on each SECRET_KEY, by its id."""
    in_grace = (ApiKeySecret.id == ApiKey.grace_secret) & (ApiKey.grace_ends_at > clock.now())
    places = ApiKeySecret.id.in_([ApiKey.current_secret, ApiKey.pending_secret])
    accepted = ApiKeySecret.select().join(ApiKey).where(places | in_grace)
    return count_by(ApiKeySecret.secret_id, accepted)
