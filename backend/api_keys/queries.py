"""Read the keys that an actor may see: one, a page of them, or some locked for a change."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import peewee as pw

from ..core.errors import Forbidden, NotFound
from ..core.identity import Identity
from ..db.database import contains, db_time, lock, newest
from ..users.models import User
from . import lineage, permissions
from .models import ApiKey, ApiKeySecret


def hold_owners(ids: Collection[UUID]) -> set[UUID]:
    """Lock the rows of these owners, so that no key is inserted between a check and an insert.

    Locks in one order, to avoid deadlocks. Returns the ids of the owners that exist.
    """
    return {
        owner.id for owner in lock(User.select(User.id).where(User.id.in_(ids)).order_by(User.id))
    }


def get(actor: Identity, key_id: UUID) -> ApiKey:
    """Return the key if it is the actor's or the actor is an admin in person, or raise NotFound.

    A key that acts sees itself and keys that can do no more; raises Forbidden for others.
    """
    key = _with_secrets(_visible(actor, key_id)).first()
    if key is None:
        raise NotFound
    permissions.require_reach(actor, key)
    return key


def list_keys(
    actor: Identity,
    *,
    limit: int,
    cursor: UUID | None = None,
    owner_id: UUID | str | None = None,
    status: str | None = None,
    search: str | None = None,
    expires_before: datetime | None = None,
    unused_since: datetime | None = None,
    never_used: bool | None = None,
) -> tuple[list[ApiKey], UUID | None]:
    """Return a page of the actor's keys, newest first, and the next cursor.

    A key that acts sees itself and keys that can do no more. `owner_id`, an id or "any", is for an
    administrator's session; raises Forbidden for others.
    """
    if owner_id is not None and not actor.is_admin_in_person:
        raise Forbidden("forbidden", "Only an administrator's session can list the keys of others.")
    query = ApiKey.select() if owner_id == "any" else _of(owner_id or actor.user_id)
    if actor.scopes is not None:
        query = query.where((ApiKey.id == actor.key_id) | ApiKey.has_scopes_within(actor.scopes))
    if status:
        query = query.where(ApiKey.has_status(status))
    if expires_before:
        query = query.where(ApiKey.expires_at < expires_before)
    if unused_since:
        last = pw.fn.COALESCE(ApiKey.last_used_at, ApiKey.created_at)
        query = query.where(last < db_time(unused_since))
    if never_used is not None:
        query = query.where(ApiKey.last_used_at.is_null(never_used))
    if search:
        query = query.where(contains(ApiKey.name, search) | contains(ApiKey.description, search))
    return newest(_with_secrets(query), limit, cursor)


def name_of(key_id: UUID) -> str | None:
    """Return the key's name; None if there is no such key."""
    name: str | None = ApiKey.select(ApiKey.name).where(ApiKey.id == key_id).scalar()
    return name


def count_active(owner_id: UUID) -> int:
    """Count the owner's active keys."""
    return int(_of(owner_id).where(ApiKey.has_status("active")).count())


def _with_secrets(keys: pw.ModelSelect) -> pw.ModelSelect:
    """Query these keys and their secrets, all as of one moment."""
    places = {name: ApiKeySecret.alias() for name in ("current", "pending", "grace")}
    keys = keys.select(ApiKey, *places.values())
    for name, secret in places.items():
        has_it = getattr(ApiKey, f"{name}_secret") == secret.id
        keys = keys.join_from(ApiKey, secret, pw.JOIN.LEFT_OUTER, on=has_it, attr=name)
    return keys


def _of(owner_id: Any) -> pw.ModelSelect:
    return ApiKey.select().where(ApiKey.owner == owner_id)


def _visible(actor: Identity, key_id: UUID) -> pw.ModelSelect:
    """Query the key, if the actor may see it."""
    query = ApiKey.select() if actor.is_admin_in_person else _of(actor.user_id)
    return query.where(ApiKey.id == key_id)


def for_update(actor: Identity, key_id: UUID, *, itself: bool = False) -> ApiKey:
    """Return the key's row, locked, if the actor may change it.

    A key that acts may change keys that can do no more, and itself only if `itself` is set: a
    leaked key must not be able to extend its own life.
    """
    if actor.key_id:
        permissions.acting_line(actor, key_id)
    if not lock(_visible(actor, key_id)):
        raise NotFound
    if actor.key_id == key_id and not itself:
        raise Forbidden("session_required", "A key cannot change itself; use a session.")
    return get(actor, key_id)


def line_for_update(actor: Identity, key_id: UUID, *, itself: bool = False) -> list[ApiKey]:
    """Return the key and its living descendants, locked, if the actor may change them all.

    While the owner's row is locked, no further descendant can be created.
    """
    owner = _visible(actor, key_id).select(ApiKey.owner).scalar()
    if owner is None:
        raise NotFound
    hold_owners([owner])
    acting = [actor.key_id, *lineage.ancestors(actor.key_id)] if actor.key_id else []
    lock(lineage.living([key_id], beside=acting))
    key = for_update(actor, key_id, itself=itself)
    others = [each for each in lineage.living([key_id]) if each.id != key_id]
    for each in others:
        if each.id == actor.key_id and not itself:
            raise Forbidden("session_required", "A key cannot change itself; use a session.")
        permissions.require_reach(actor, each)
    return [key, *others]
