"""Keep an actor from giving a key more than the owner's role, or the acting key, allows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ..core import context, rate_limits
from ..core.errors import INVALID_TOKEN, Forbidden, InvalidCredentials
from ..core.identity import Identity
from ..core.settings_parsers import Limit
from ..db.database import lock
from ..users.models import User
from . import changes, lineage, networks, quotas
from .models import ApiKey
from .scopes import allowed, within


def require_holder(actor: Identity, owner: Any) -> None:
    """Raise Forbidden if the owner is another person, who alone may have the key's secret."""
    if owner.id != actor.user_id and owner.kind != "service" and actor.method != "console":
        raise Forbidden("forbidden", "Only the owner can receive the secret of a person's key.")


def require_reach(actor: Identity, key: ApiKey) -> None:
    """Raise Forbidden for a key that can do more than the one that the actor presented."""
    if actor.scopes is None or actor.key_id == key.id:
        return
    if not within(key.scopes, actor.scopes):
        raise Forbidden("insufficient_scope", "That key can do more than the one you presented.")


def acting_line(actor: Identity, *others: UUID) -> list[ApiKey]:
    """Return the key that the actor presented and its ancestors, locked, if all are active.

    Otherwise raises InvalidCredentials: a key that is being revoked must not create another.
    `others` are locked too, in one order, so that two keys that change each other do not deadlock.
    """
    assert actor.key_id is not None
    line = {actor.key_id, *lineage.ancestors(actor.key_id)}
    rows = lock(ApiKey.select().where(ApiKey.id.in_({*line, *others})).order_by(ApiKey.id))
    found = [key for key in rows if key.id in line]
    if len(found) < len(line) or any(key.status != "active" for key in found):
        raise InvalidCredentials(challenge=INVALID_TOKEN)
    return found


def require_allowed(actor: Identity, owner: User, scopes: list[str]) -> None:
    """Raise Forbidden if the owner's role does not allow all of the scopes.

    Only an administrator's session can grant scopes that are reserved for service accounts.
    """
    kind = owner.kind if actor.is_admin_in_person else "person"
    if not all(allowed(scope, owner.role, kind) for scope in scopes):
        raise Forbidden("insufficient_scope", "The owner's role does not allow these scopes.")


def require_within(actor: Identity, key: ApiKey) -> None:
    """Raise Forbidden if `key` can do more, or lives longer, than the key that acts on it."""
    if actor.key_id is None:
        return
    line = acting_line(actor)
    if not within(key.scopes, actor.scopes or ()):
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
