"""Revoke and delete API keys, and the keys that were made with them."""

from __future__ import annotations

from uuid import UUID

from .. import services
from ..core import clock
from ..core.errors import Conflict
from ..core.identity import Identity
from ..db.database import atomic, lock
from . import lifecycle, lineage, queries, recording
from .models import ApiKey, ApiKeySecret


@atomic
def revoke(actor: Identity, key_id: UUID, *, cascade: bool = False) -> ApiKey:
    """Revoke the key permanently, and return it. Revoking it again changes nothing.

    With `cascade`, all its descendants are revoked too. Without it, they are refused as long as the
    key exists, but keep their own status.
    """
    if cascade:
        key, *others = queries.line_for_update(actor, key_id, itself=True)
    else:
        key, others = queries.for_update(actor, key_id, itself=True), []
    _revoke(actor, [key, *others])
    return key


def revoke_by_possession(text: str) -> None:
    """Revoke the key with this text, if there is one: having the text is enough to do so.

    All its descendants are revoked too, since whoever found it may have made them. The owner is
    notified by e-mail. A text that was imported in two forms has two keys.
    """
    digests = [digest for _, digest in services.current().keyring.digests(text)]
    if digests:
        _revoke_held(digests)


@atomic
def _revoke_held(digests: list[str]) -> None:
    held = ApiKeySecret.select(ApiKeySecret, ApiKey).join(ApiKey)
    secrets = {each.key_id: each for each in held.where(ApiKeySecret.digest.in_(digests))}
    if not secrets:
        return
    queries.hold_owners({each.key.owner_id for each in secrets.values()})
    for key in lock(lineage.living(set(secrets))):  # all lines in one order
        secret = secrets.get(key.id)
        if secret and secret.id in key.accepted_secrets:
            children = [each for each in lineage.living([key.id]) if each.id != key.id]
            if _revoke(None, [key, *children]):
                lifecycle.notify_owner(key, "key_leaked", children=children)


def _revoke(actor: Identity | None, keys: list[ApiKey]) -> bool:
    """Revoke the keys; return False if all of them were revoked before."""
    living = [key for key in keys if key.revoked_at is None]
    for key in living:
        key.revoked_at = key.updated_at = clock.now()
        key.save()
    recording.record(actor, "key.revoke", *living)
    return bool(living)


@atomic
def delete(actor: Identity, key_id: UUID, *, cascade: bool = False) -> None:
    """Delete the key and its secrets; with `cascade`, also its living descendants.

    Without it, raises Conflict if there are any, since nothing would limit them any more.
    """
    if cascade:
        key, *others = queries.line_for_update(actor, key_id)
    else:
        key, others = queries.for_update(actor, key_id), []
        if ApiKey.select().where(ApiKey.parent == key, ApiKey.revoked_at.is_null()).exists():
            raise Conflict(
                "conflict", "The key has created others. Delete them too with ?cascade=true."
            )
    for each in (key, *others):
        each.delete_instance()
    recording.record(actor, "key.delete", key, *others)
