"""What may be done with API keys. The actor comes first: a session, or a key that manages keys."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..audit import service as audit
from ..core import clock, context, rate_limits
from ..core.errors import (
    INVALID_TOKEN,
    Conflict,
    Forbidden,
    Invalid,
    InvalidCredentials,
    NotFound,
)
from ..core.identity import Identity
from ..core.settings import Limit
from ..core.words import counted
from ..crypto import keyring
from ..db.database import (
    atomic,
    contains,
    count_by,
    db_time,
    execute,
    json_rows,
    lock,
    new_id,
    newest,
    on_postgres,
)
from ..users.models import User
from . import changes, lifecycle, lineage, networks, quotas
from . import scopes as rules
from .models import ApiKey, ApiKeySecret


def issue(actor: Identity, *, owner_id: UUID | None = None, **wanted: Any) -> ApiKey:
    """Create a key for the actor. Its text, `key.key`, is not stored and never shown again.

    Conflict `limit_reached` at MAX_KEYS_PER_USER keys that are not revoked. With `owner_id`, an
    administrator's session creates it for a service account, never for another person.
    """
    _require_future(wanted.get("expires_at"))  # regardless of the owner
    key = draft(actor, _owner(actor, owner_id), **wanted)
    key.key, secret = _new_secret()
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
    _require_holder(actor, owner)
    wanted = sorted(set(scopes or ()))
    _require_allowed(actor, owner, wanted)
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

    Forbidden for another account unless an administrator's session asks; NotFound if it is missing.
    """
    if owner_id is None or owner_id == actor.user_id:
        return actor.user
    if not actor.is_admin_in_person:
        raise Forbidden("forbidden", "Only an administrator's session can create keys for others.")
    owner = User.get_or_none(User.id == owner_id)
    if owner is None:
        raise NotFound("The owner does not exist.")
    return owner


def _require_holder(actor: Identity, owner: Any) -> None:
    """Raise Forbidden if the owner is another person: only they may hold their secret."""
    if owner.id != actor.user_id and owner.kind != "service" and actor.method != "console":
        raise Forbidden("forbidden", "Only the owner can receive the secret of a person's key.")


@atomic
def _insert(actor: Identity, key: ApiKey, secret: ApiKeySecret) -> None:
    if not hold_owners([key.owner_id]):
        raise NotFound("The owner does not exist.")
    _require_within(actor, key)
    require_room(count_kept([key.owner_id]).get(key.owner_id, 0))
    key.current, key.current_secret = secret, secret.id
    key.save(force_insert=True)
    _add(key, secret)
    record(actor, "key.create", key)


def hold_owners(ids: Collection[UUID]) -> set[UUID]:
    """Lock the rows of these owners, so that for others, checking and inserting is one step.

    Locks in one order, to avoid deadlocks. Returns the ids of those owners that exist.
    """
    return {
        owner.id for owner in lock(User.select(User.id).where(User.id.in_(ids)).order_by(User.id))
    }


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


def _new_secret() -> tuple[str, ApiKeySecret]:
    """Return a new random text, and what is stored of it."""
    ring = services.current().keyring
    text = ring.new_api_key()
    return text, secret_of(keyring.hint(text), *ring.digests(text)[0])


def secret_of(hint: str, secret_id: str, digest: str) -> ApiKeySecret:
    """Return what is stored of a text: its digest under the SECRET_KEY of that id, and a hint."""
    return ApiKeySecret(id=new_id(), hint=hint, secret_id=secret_id, digest=digest)


def _add(key: ApiKey, secret: ApiKeySecret) -> None:
    secret.key = key
    secret.save(force_insert=True)


def get(actor: Identity, key_id: UUID) -> ApiKey:
    """Return the key if it is the actor's or the actor is an admin in person; else NotFound.

    An actor that is a key sees itself and keys that can do no more than it; Forbidden for others.
    """
    key = _with_secrets(_visible(actor, key_id)).first()
    if key is None:
        raise NotFound
    _require_reach(actor, key)
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

    An actor that is a key sees itself and keys that can do no more than it. `owner_id`, an id or
    "any", is for an administrator's session: Forbidden for others.
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


def change(actor: Identity, key_id: UUID, **wanted: Any) -> ApiKey:
    """Change attributes of a key that its owner may set, and return it.

    Members of quota and rate limit that are not given stay. Conflict for a revoked key: that is
    final. Forbidden for what an administrator has set, unless it becomes narrower.
    """
    _require_future(wanted.get("expires_at"))
    if "scopes" in wanted:
        wanted["scopes"] = sorted(set(wanted["scopes"]))
    return _change(actor, key_id, wanted)


@atomic
def _change(actor: Identity, key_id: UUID, wanted: dict[str, Any]) -> ApiKey:
    key = _for_update(actor, key_id)
    wanted = changes.merged(key, wanted)
    changes.require_below_maximum(actor, wanted.get("rate_limit"))
    if "scopes" in wanted:
        _require_allowed(actor, key.owner, wanted["scopes"])
    changes.respect_locks(actor, key, wanted)
    if wanted.get("expires_at", key.expires_at) != key.expires_at:
        key.expiry_notice = None
    if key.disabled and wanted.get("disabled") is False:
        key.enabled_at = clock.now()
    for name, value in wanted.items():
        setattr(key, name, value)
    _require_within(actor, key)
    if key.revoked_at is not None:
        raise Conflict("conflict", "A revoked key cannot be changed.")
    if key.dirty_fields:
        key.updated_at = clock.now()
        key.save()
        action = "key.disable" if wanted.get("disabled") else "key.update"
        record(actor, action, key, changed=sorted(wanted))
    return key


@atomic
def rotate(actor: Identity, key_id: UUID, *, grace_seconds: int = 86_400) -> ApiKey:
    """Give the key a further secret. Its text, `key.key`, is not stored and never shown again.

    The present secret stays valid until the new one is first used, and `grace_seconds` from then
    on. An earlier new secret that was never used is replaced. Conflict if the key is not active,
    Forbidden if an administrator has disabled it.
    """
    key = _for_update(actor, key_id)
    _require_holder(actor, key.owner)
    changes.require_not_disabled_by_admin(actor, key)
    _require_within(actor, key)
    if key.status != "active":
        raise Conflict("conflict", f"The key is {key.status}; only an active key can be rotated.")
    text, secret = _new_secret()
    key.pending = secret
    key.pending_secret, key.grace_seconds = secret.id, grace_seconds
    key.updated_at = clock.now()
    key.save()
    others = ApiKeySecret.id.not_in(key.accepted_secrets)
    ApiKeySecret.delete().where((ApiKeySecret.key == key) & others).execute()
    _add(key, secret)
    key.key = text
    record(actor, "key.rotate", key, grace_seconds=grace_seconds)
    return key


@atomic
def revoke(actor: Identity, key_id: UUID, *, cascade: bool = False) -> ApiKey:
    """Revoke the key for good, and return it. Revoking it again changes nothing.

    With `cascade`, all its descendants are revoked too. Without, they are refused as long as the
    key exists, but keep their own status.
    """
    if cascade:
        key, *others = _line_for_update(actor, key_id, itself=True)
    else:
        key, others = _for_update(actor, key_id, itself=True), []
    _revoke(actor, [key, *others])
    return key


def revoke_by_possession(text: str) -> None:
    """Revoke the key with this text, if there is one: having the text is enough to do so.

    All its descendants are revoked too, since a finder may have made them. Its owner gets mail. A
    text that was imported in two forms has two keys.
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
    hold_owners({each.key.owner_id for each in secrets.values()})
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
    _record_many(actor, "key.revoke", living)
    return bool(living)


@atomic
def delete(actor: Identity, key_id: UUID, *, cascade: bool = False) -> None:
    """Delete the key and its secrets; with `cascade`, also its living descendants.

    Without, Conflict if there are any: nothing would limit them any more.
    """
    if cascade:
        key, *others = _line_for_update(actor, key_id)
    else:
        key, others = _for_update(actor, key_id), []
        if ApiKey.select().where(ApiKey.parent == key, ApiKey.revoked_at.is_null()).exists():
            raise Conflict(
                "conflict", "The key has created others. Delete them too with ?cascade=true."
            )
    for each in (key, *others):
        each.delete_instance()
    _record_many(actor, "key.delete", [key, *others])


def write_last_used(notes: dict[str, tuple[datetime, str]]) -> None:
    """Store when and from where keys were last used, in one statement.

    `notes` is {key id: (time, address)}.
    """
    rows = json.dumps(
        [(key, at.isoformat(" ", "microseconds"), ip) for key, (at, ip) in notes.items()]
    )
    # In one order, so that this never deadlocks with others that lock some of the same keys.
    in_order = " FOR NO KEY UPDATE OF k" if on_postgres() else ""
    execute(
        f"WITH used (id, at, ip) AS ({json_rows('uuid', 'timestamptz', 'text')}),"  # noqa: S608
        " known AS (SELECT u.id, u.at, u.ip FROM used u JOIN api_keys k ON k.id = u.id"
        f" ORDER BY k.id{in_order})"
        " UPDATE api_keys SET last_used_at = known.at, last_used_ip = known.ip FROM known"
        " WHERE api_keys.id = known.id AND (last_used_at IS NULL OR last_used_at < known.at)",
        rows,
    )


def name_of(key_id: UUID) -> str | None:
    """Return the key's name; None if there is no such key."""
    name: str | None = ApiKey.select(ApiKey.name).where(ApiKey.id == key_id).scalar()
    return name


def count_active(owner_id: UUID) -> int:
    """Count the owner's active keys."""
    return int(_of(owner_id).where(ApiKey.has_status("active")).count())


def secrets_in_use() -> dict[str, int]:
    """Count the key secrets that depend on each SECRET_KEY, by its id."""
    in_grace = (ApiKeySecret.id == ApiKey.grace_secret) & (ApiKey.grace_ends_at > clock.now())
    places = ApiKeySecret.id.in_([ApiKey.current_secret, ApiKey.pending_secret])
    accepted = ApiKeySecret.select().join(ApiKey).where(places | in_grace)
    return count_by(ApiKeySecret.secret_id, accepted)


def record(actor: Identity | None, action: str, *keys: ApiKey, **detail: Any) -> None:
    """Record that the actor did this to each of the keys."""
    acts = [(("api_key", key.id), {"owner_id": str(key.owner_id), **detail}) for key in keys]
    audit.record_each(actor, action, acts)


def _record_many(actor: Identity | None, action: str, keys: list[ApiKey]) -> None:
    for some in pw.chunked(keys, 200):  # as many as fit into one statement
        record(actor, action, *some)


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


def _for_update(actor: Identity, key_id: UUID, *, itself: bool = False) -> ApiKey:
    """Return the key's row, locked, if the actor may change it.

    A key that manages keys may change those that can do no more than itself, and itself only if
    `itself` is set: a leaked key must not be able to prolong its own life.
    """
    if actor.key_id:
        _acting_line(actor, key_id)
    if not lock(_visible(actor, key_id)):
        raise NotFound
    if actor.key_id == key_id and not itself:
        raise Forbidden("session_required", "A key cannot change itself; use a session.")
    return get(actor, key_id)


def _line_for_update(actor: Identity, key_id: UUID, *, itself: bool = False) -> list[ApiKey]:
    """Return the key and its living descendants, locked, if the actor may change them all.

    While the owner's row is locked, no further descendant can be created.
    """
    owner = _visible(actor, key_id).select(ApiKey.owner).scalar()
    if owner is None:
        raise NotFound
    hold_owners([owner])
    acting = [actor.key_id, *lineage.ancestors(actor.key_id)] if actor.key_id else []
    lock(lineage.living([key_id], beside=acting))
    key = _for_update(actor, key_id, itself=itself)
    others = [each for each in lineage.living([key_id]) if each.id != key_id]
    for each in others:
        if each.id == actor.key_id and not itself:
            raise Forbidden("session_required", "A key cannot change itself; use a session.")
        _require_reach(actor, each)
    return [key, *others]


def _require_reach(actor: Identity, key: ApiKey) -> None:
    """Raise Forbidden for a key that can do more than the one that the actor presented."""
    if actor.scopes is None or actor.key_id == key.id:
        return
    if not rules.within(key.scopes, actor.scopes):
        raise Forbidden("insufficient_scope", "That key can do more than the one you presented.")


def _acting_line(actor: Identity, *others: UUID) -> list[ApiKey]:
    """Return the key that the actor presented and its ancestors, locked, if all are active.

    Else InvalidCredentials: a key that is being revoked must leave no successor. `others` are
    locked with them, in one order, so that two keys that change each other do not deadlock.
    """
    assert actor.key_id is not None
    line = {actor.key_id, *lineage.ancestors(actor.key_id)}
    rows = lock(ApiKey.select().where(ApiKey.id.in_({*line, *others})).order_by(ApiKey.id))
    found = [key for key in rows if key.id in line]
    if len(found) < len(line) or any(key.status != "active" for key in found):
        raise InvalidCredentials(challenge=INVALID_TOKEN)
    return found


def _require_future(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= clock.now():
        raise Invalid("expires_at", "Must be in the future.")


def _require_allowed(actor: Identity, owner: User, scopes: list[str]) -> None:
    """Raise Forbidden if the owner's role does not allow all of the scopes.

    Scopes for service accounts only must be granted by an administrator's session.
    """
    kind = owner.kind if actor.is_admin_in_person else "person"
    if not all(rules.allowed(scope, owner.role, kind) for scope in scopes):
        raise Forbidden("insufficient_scope", "The owner's role does not allow these scopes.")


def _require_within(actor: Identity, key: ApiKey) -> None:
    """Raise Forbidden if `key` can do more, or lives longer, than the key that acts on it."""
    if actor.key_id is None:
        return
    line = _acting_line(actor)
    if not rules.within(key.scopes, actor.scopes or ()):
        raise Forbidden("insufficient_scope", "The scopes exceed those of the key you presented.")
    for acting in line:
        _require_narrower(key, acting)


def _require_narrower(key: ApiKey, acting: ApiKey) -> None:
    last = acting.expires_at
    if not networks.within(key.allowed_ips, acting.allowed_ips):
        raise Forbidden(
            "insufficient_scope", "The addresses exceed those of the key you presented."
        )
    if last is not None and (key.expires_at is None or key.expires_at > last):
        raise Forbidden("insufficient_scope", "The key would outlive the key you presented.")
    if not rate_limits.within(_limit_of(key), _limit_of(acting)):
        raise Forbidden("insufficient_scope", "The limit exceeds that of the key you presented.")
    if acting.quota and not (key.quota and quotas.within(key.quota, acting.quota)):
        raise Forbidden("insufficient_scope", "The quota exceeds that of the key you presented.")


def _limit_of(key: ApiKey) -> Limit | None:
    return rate_limits.of_key(changes.as_limit(key.rate_limit), context.settings())
