"""Decide what scopes allow, without tables or HTTP.

A scope is `area:act`; `area:*` covers every act of the area.
"""

from collections.abc import Iterable

from ..subject import Scope

PATTERN = r"[a-z][a-z0-9_-]{0,31}:([a-z][a-z0-9_-]{0,31}|\*)"

# The scopes that the subjects define. All others belong to the services for which we verify keys.
OWN: list[str] = []
_RESERVED: list[Scope] = []


def define_scopes(scopes: Iterable[Scope]) -> None:
    """Define the scopes of a subject."""
    for scope in scopes:
        if scope.name in OWN:
            raise ValueError(f"scope defined twice: {scope.name}")
        if not scope.name.endswith(":*"):
            OWN.append(scope.name)
        if scope.for_admins or scope.for_services:
            _RESERVED.append(scope)


def covers(held: Iterable[str], wanted: str) -> bool:
    """Return whether `held` contains `wanted`, or the wildcard of its area."""
    return wanted in held or f"{wanted.partition(':')[0]}:*" in held


def within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Return whether `outer` covers all of `inner`."""
    return all(covers(outer, each) for each in inner)


def common(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return the scopes that both cover: for a wildcard in one, those of its area in the other."""
    return frozenset(
        [each for each in one if covers(other, each)]
        + [each for each in other if covers(one, each)]
    )


def allowed(scope: str, role: str, kind: str) -> bool:
    """Return whether the role lets an owner of this kind hold `scope`."""
    if role == "admin":
        return True
    return not any(
        (each.for_admins or kind != "service") and _overlap(scope, each.name) for each in _RESERVED
    )


def _overlap(one: str, other: str) -> bool:
    return covers((one,), other) or covers((other,), one)


def effective(stored: Iterable[str], role: str, kind: str) -> frozenset[str]:
    """Return what is left of the stored scopes under the owner's current role.

    A wildcard that is too wide now is replaced by those of our own scopes in it that are allowed.
    """
    if role == "admin":
        return frozenset(stored)
    result: set[str] = set()
    for scope in stored:
        if allowed(scope, role, kind):
            result.add(scope)
        elif scope.endswith(":*"):
            result |= {own for own in OWN if covers((scope,), own) and allowed(own, role, kind)}
    return frozenset(result)
