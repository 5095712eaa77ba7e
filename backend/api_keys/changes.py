"""Rules for changing a key: partial changes, RATE_LIMIT_MAX, administrators' locks."""

from __future__ import annotations

from typing import Any

from ..core import context, rate_limits
from ..core.errors import Forbidden, Invalid
from ..core.identity import Identity
from ..core.settings_parsers import Limit
from ..core.words import counted
from . import networks, quotas
from .models import ApiKey

LOCKABLE = ("disabled", "quota", "rate_limit", "allowed_ips")


def merged(key: ApiKey, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return `wanted`, with missing members of quota and rate limit filled in from the key.

    Raises Invalid if they do not form a quota or rate limit together.
    """
    whole = dict(wanted)
    for name, fault_of in (("quota", quotas.fault), ("rate_limit", rate_limits.fault)):
        if wanted.get(name) is not None:
            whole[name] = {**(getattr(key, name) or {}), **wanted[name]}
            if fault := fault_of(whole[name]):
                raise Invalid(name, ": ".join(fault))
    return whole


def require_below_maximum(actor: Identity, rate_limit: dict[str, int] | None) -> None:
    """Raise Invalid for more than RATE_LIMIT_MAX, in a burst or over time, except for admins."""
    limit, highest = as_limit(rate_limit), context.settings().rate_limit_max
    if (
        limit
        and highest
        and not actor.is_admin_in_person
        and not rate_limits.within(limit, highest)
    ):
        most = f"{counted(highest.most, 'use')} in {counted(highest.seconds, 'second')}"
        raise Invalid("rate_limit", f"Must not exceed {most}, nor allow a larger burst.")


def respect_locks(actor: Identity, key: ApiKey, wanted: dict[str, Any]) -> None:
    """Lock what an administrator sets on another's key, and unlock what one of them lifts.

    Raises Forbidden if anyone else would widen what is locked.
    """
    locked = set(key.locked_by_admin)
    if not actor.is_admin_in_person:
        for name in locked & wanted.keys():
            if not _NARROWS[name](wanted[name], getattr(key, name)):
                raise Forbidden(
                    "forbidden", f"An administrator set {name}; you can only narrow it."
                )
        return
    for name in wanted.keys() & set(LOCKABLE):
        if not wanted[name]:
            locked.discard(name)
        elif key.owner_id != actor.user_id:
            locked.add(name)
    if locked != set(key.locked_by_admin):
        key.locked_by_admin = sorted(locked)  # type: ignore[assignment]


def require_not_disabled_by_admin(actor: Identity, key: ApiKey) -> None:
    """Raise Forbidden if an administrator has disabled the key and the actor is not one."""
    if key.disabled and "disabled" in key.locked_by_admin and not actor.is_admin_in_person:
        raise Forbidden("forbidden", "An administrator has disabled this key.")


def as_limit(rate_limit: dict[str, int] | None) -> Limit | None:
    """Return a key's `rate_limit` in the form in which limits are compared."""
    return Limit(rate_limit["limit"], rate_limit["window_seconds"]) if rate_limit else None


def _quota_narrows(new: dict[str, Any] | None, old: dict[str, Any]) -> bool:
    """False from monthly to daily too: a day's quota would be added to what the month has spent."""
    if new is None or (old["refill_interval"], new["refill_interval"]) == ("monthly", "daily"):
        return False
    return quotas.within(new, old)


_NARROWS = {
    "disabled": lambda new, old: new or not old,
    "quota": _quota_narrows,
    "rate_limit": lambda new, old: rate_limits.within(as_limit(new), as_limit(old)),
    "allowed_ips": networks.within,
}
