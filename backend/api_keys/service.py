"""Create and change API keys. The actor is a session, or a key that manages keys."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ..core import clock, context
from ..core.errors import Conflict, Forbidden, Invalid, NotFound
from ..core.identity import Identity
from ..core.words import counted
from ..db.database import atomic, count_by, execute, json_rows, on_postgres
from ..users.models import User
from . import changes, permissions, queries, recording, rotation
from .models import ApiKey, ApiKeySecret


def issue(actor: Identity, *, owner_id: UUID | None = None, **wanted: Any) -> ApiKey:
    """Create a key for the actor. Its text, `key.key`, is not stored and never shown again.

    Raises Conflict `limit_reached` if the owner has MAX_KEYS_PER_USER keys that are not revoked.
    With `owner_id`, an administrator's session creates it for a service account, never for another
    person.
    """
    _require_future(wanted.get("expires_at"))  # regardless of the owner
    key = draft(actor, _owner(actor, owner_id), **wanted)
    key.key, secret = rotation.new_secret()
    _insert(actor, key, secret)
    return key


def draft(
    actor: Identity,
    owner: Any,
    *,
    name: str,
    description: str | None = None,
    scopes: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    allowed_ips: list[str] | None = None,
    rate_limit: dict[str, int] | None = None,
    quota: dict[str, Any] | None = None,
    expires_in_days: int | None = None,
    expires_at: datetime | None = None,
) -> ApiKey:
    """Draft a key for the owner without storing it, if the actor may create one like it."""
    now = clock.now()
    if expires_in_days is not None:
        expires_at = now + timedelta(days=expires_in_days)
    _require_future(expires_at)
    changes.require_below_maximum(actor, rate_limit)
    permissions.require_holder(actor, owner)
    wanted = sorted(set(scopes or ()))
    permissions.require_allowed(actor, owner, wanted)
    return ApiKey(
        owner=owner.id,
        parent=actor.key_id,
        name=name,
        description=description,
        scopes=wanted,
        metadata=metadata or {},
        allowed_ips=allowed_ips or [],
        rate_limit=rate_limit,
        quota=quota,
        locked_by_admin=[],
        expires_at=expires_at,
        created_at=now,
        updated_at=now,
    )


def _owner(actor: Identity, owner_id: UUID | None) -> Any:
    """Return the owner of a new key.

    Raises Forbidden for another account, except for an administrator's session; NotFound if it is
    missing.
    """
    if owner_id is None or owner_id == actor.user_id:
        return actor.user
    if not actor.is_admin_in_person:
        raise Forbidden("forbidden", "Only an administrator's session can create keys for others.")
    owner = User.get_or_none(User.id == owner_id)
    if owner is None:
        raise NotFound("The owner does not exist.")
    return owner


@atomic
def _insert(actor: Identity, key: ApiKey, secret: ApiKeySecret) -> None:
    if not queries.hold_owners([key.owner_id]):
        raise NotFound("The owner does not exist.")
    permissions.require_within(actor, key)
    require_room(count_kept([key.owner_id]).get(key.owner_id, 0))
    key.current, key.current_secret = secret, secret.id
    key.save(force_insert=True)
    rotation.store_secret(key, secret)
    recording.record(actor, "key.create", key)


def count_kept(owners: Collection[UUID]) -> dict[UUID, int]:
    """Count each owner's keys that are not revoked; owners without any are left out."""
    return count_by(
        ApiKey.owner, ApiKey.select().where(ApiKey.owner.in_(owners), ApiKey.revoked_at.is_null())
    )


def require_room(kept: int) -> None:
    """Raise Conflict `limit_reached` if an owner with `kept` keys may not have another one."""
    most = context.settings().max_keys_per_user
    if kept >= most:
        raise Conflict(
            "limit_reached",
            f"An owner may have at most {counted(most, 'key')}, not counting revoked ones.",
        )


def change(actor: Identity, key_id: UUID, **wanted: Any) -> ApiKey:
    """Change attributes of a key that its owner may set, and return it.

    Members of quota and rate limit that are not given stay. Raises Conflict for a revoked key, and
    Forbidden for what an administrator has set, unless it becomes narrower.
    """
    _require_future(wanted.get("expires_at"))
    if "scopes" in wanted:
        wanted["scopes"] = sorted(set(wanted["scopes"]))
    return _change(actor, key_id, wanted)


@atomic
def _change(actor: Identity, key_id: UUID, wanted: dict[str, Any]) -> ApiKey:
    key = queries.for_update(actor, key_id)
    wanted = changes.merged(key, wanted)
    changes.require_below_maximum(actor, wanted.get("rate_limit"))
    if "scopes" in wanted:
        permissions.require_allowed(actor, key.owner, wanted["scopes"])
    changes.respect_locks(actor, key, wanted)
    if wanted.get("expires_at", key.expires_at) != key.expires_at:
        key.expiry_notice = None
    if key.disabled and wanted.get("disabled") is False:
        key.enabled_at = clock.now()
    for name, value in wanted.items():
        setattr(key, name, value)
    permissions.require_within(actor, key)
    if key.revoked_at is not None:
        raise Conflict("conflict", "A revoked key cannot be changed.")
    if key.dirty_fields:
        key.updated_at = clock.now()
        key.save()
        action = "key.disable" if wanted.get("disabled") else "key.update"
        recording.record(actor, action, key, changed=sorted(wanted))
    return key


def write_last_used(uses: dict[str, tuple[datetime, str]]) -> None:
    """Store when and from where keys were last used, in one statement.

    `uses` is {key id: (time, address)}.
    """
    rows = json.dumps(
        [(key, at.isoformat(" ", "microseconds"), ip) for key, (at, ip) in uses.items()]
    )
    # In one order, so that this never deadlocks with others that lock the same keys.
    in_order = " FOR NO KEY UPDATE OF k" if on_postgres() else ""
    execute(
        f"WITH used (id, at, ip) AS ({json_rows('uuid', 'timestamptz', 'text')}),"  # noqa: S608
        " known AS (SELECT u.id, u.at, u.ip FROM used u JOIN api_keys k ON k.id = u.id"
        f" ORDER BY k.id{in_order})"
        " UPDATE api_keys SET last_used_at = known.at, last_used_ip = known.ip FROM known"
        " WHERE api_keys.id = known.id AND (last_used_at IS NULL OR last_used_at < known.at)",
        rows,
    )


def _require_future(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= clock.now():
        raise Invalid("expires_at", "Must be in the future.")
