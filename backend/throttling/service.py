"""Throttles: how often somebody may guess a password or a code, counted in the database.

Only failures count. Each guess is booked before it is looked at and taken back when it was right,
so that of many at once no more are looked at than the limit allows, in all processes together
(NIST SP 800-63B section 3.2.2; ASVS 5.0 6.3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import ceil

import peewee as pw

from .. import services
from ..audit import service as audit
from ..core import clock, context
from ..core.errors import Failure, Forbidden, InvalidCredentials
from ..core.identity import Identity
from ..core.settings import Limit
from ..crypto.passwords import Account
from ..db.database import atomic, db_time, delete_some, execute, from_db_time
from ..users import service as users
from ..users.models import User
from .models import KnownAddress, Throttle

KNOWN_FOR = timedelta(days=30)  # how long an address is remembered

_USED = "SELECT bucket, used, expires_at FROM throttles WHERE bucket IN ({}) AND expires_at > ?"


@contextmanager
def attempt(
    account: User | str, action: str, actor: Identity | None = None, *, code: bool = False
) -> Iterator[None]:
    """Let one guess at the account's password, or at a `code`, be made from the present address.

    The block raises InvalidCredentials or Forbidden for a wrong one: it counts then, and `action`
    has failed. `account` is the name that was given if there is no such user: it has its limits
    too, or the difference would tell. Failure `rate_limited` if there were too many.
    """
    if not code:  # before anything is written: clients without a place ask again at once
        services.current().password_hasher.require_place(_hashes_as(account))
    booked = _book(account, code=code)
    try:
        yield
    except (InvalidCredentials, Forbidden) as refusal:
        target = ("user", account.id) if isinstance(account, User) else None
        audit.record(actor, action, outcome="failure", target=target, code=refusal.code)
        raise
    except BaseException:
        _take_back(booked)
        raise
    _take_back(booked)


def require_password(actor: Identity, password: str, action: str) -> User:
    """The actor's row, if `password` is theirs, as `action` takes; else Forbidden."""
    user = users.get(actor, actor.user_id)
    with attempt(user, action, actor):
        if not is_password(user, password):
            raise wrong_password()
    return user


def is_password(account: User | str, password: str) -> bool:
    """True if it is the account's password; it takes as long for the name of no user."""
    stored = account.password_hash if isinstance(account, User) else None
    return services.current().password_hasher.verify(password, stored, _hashes_as(account))


def wrong_password() -> Forbidden:
    """The refusal of a wrong `current_password`; the session goes on."""
    return Forbidden("wrong_password", "The current password is wrong.")


def wrong_code() -> Forbidden:
    """The refusal of a wrong code from someone who is signed in; the session goes on."""
    return Forbidden("wrong_code", "The code is wrong, used or too old.")


def allow(what: str, limit: Limit) -> bool:
    """Use up one of the limit of `what`; False if nothing of it is left."""
    return _use(services.current().keyring.blind(what), limit) is not None


def spend(what: str, limit: Limit) -> None:
    """As `allow`; Failure `rate_limited`, with the seconds to wait, if nothing of it is left."""
    if not allow(what, limit):
        raise _too_many(services.current().keyring.blind(what), None)


def allow_from_here(what: str, limit: Limit) -> bool:
    """Use up one of the limit of `what` for the present address; False if nothing of it is left.

    Most of a flood ends with a look, and costs no write.
    """
    bucket = services.current().keyring.blind(f"{what} from {context.network()}")
    full = (Throttle.used >= limit.most) & (Throttle.expires_at > clock.now())
    if Throttle.select().where((Throttle.bucket == bucket) & full).exists():
        return False
    return _use(bucket, limit) is not None


def use_up(what: str, limit: Limit) -> None:
    """Leave nothing of the limit of `what`."""
    bucket, now = services.current().keyring.blind(what), clock.now()
    Throttle.insert(
        bucket=bucket, used=limit.most, expires_at=now + timedelta(seconds=limit.seconds)
    ).on_conflict(conflict_target=[Throttle.bucket], update={Throttle.used: limit.most}).execute()


def remember_address(user: User) -> None:
    """Note that the user signed in from the present address."""
    _remember(user, context.network())


def _remember(user: User, address: str) -> None:
    now = clock.now()
    KnownAddress.insert(user=user, address=address, last_used_at=now).on_conflict(
        conflict_target=[KnownAddress.user, KnownAddress.address],
        update={KnownAddress.last_used_at: now},
    ).execute()


def clear_failures(user: User) -> None:
    """Forget the failed guesses at the user's account: of a day, and from the present address."""
    who, blind = _who(user), services.current().keyring.blind
    # In the order in which guesses are booked, so that the two never wait for each other for ever.
    for bucket in (blind(f"{who} from {context.network()}"), blind(who)):
        Throttle.delete().where(Throttle.bucket == bucket).execute()


def trust_address(user: User) -> None:
    """Let the user sign in from the present address, however many failures others have caused.

    For a user who has just proved, by a link or a code, that they read the account's mail. Whoever
    reads it without being the owner still has to guess the second factor, and gets no more guesses
    at that: failed codes are also counted apart, where neither this nor the address helps.
    """
    clear_failures(user)
    _remember(user, _by_mail(context.network()))


def _book(account: User | str, *, code: bool) -> list[tuple[str, datetime]]:
    """The buckets that count this attempt, each with its end; Failure if one of them is full."""
    settings, blind = context.settings(), services.current().keyring.blind
    who, address = _who(account), context.network()
    limits = {
        blind(f"{who} from {address}"): settings.login_attempts,
        blind(f"address {address}"): settings.login_attempts_per_address,
        blind(who): settings.login_attempts_per_account,
    }
    exempt = {blind(who): [address, _by_mail(address)]}
    if code:
        limits[blind(f"codes of {who}")] = settings.login_attempts_per_account
        exempt[blind(f"codes of {who}")] = [address]

    def refuse(bucket: str, ends: datetime | None = None) -> None:
        if bucket not in exempt or not _is_known(account, exempt[bucket]):
            raise _too_many(bucket, ends)

    # Most of a flood ends here: it costs no write, and no query is built.
    statement = _USED.format(", ".join("?" * len(limits)))
    rows = execute(statement, *limits, db_time(clock.now())).fetchall()
    used = {bucket: (times, from_db_time(ends)) for bucket, times, ends in rows}
    for bucket, limit in limits.items():
        times, ends = used.get(bucket, (0, None))
        if times >= limit.most:
            refuse(bucket, ends)
    return _use_all(limits, refuse)


@atomic
def _use_all(limits: dict[str, Limit], refuse: Callable[[str], None]) -> list[tuple[str, datetime]]:
    """Count one more in each bucket, and tell when it empties; `refuse` is asked about full ones.

    Everybody takes them in the same order, so that no two wait for each other for ever.
    """
    booked = []
    for bucket, limit in limits.items():
        end = _use(bucket, limit)
        if end is None:
            refuse(bucket)
        else:
            booked.append((bucket, end))
    return booked


def _use(bucket: str, limit: Limit) -> datetime | None:
    """Count one more in the bucket, and tell when it empties; None if it is full. One statement."""
    now = clock.now()
    empty = Throttle.expires_at <= now
    rows = (
        Throttle.insert(bucket=bucket, used=1, expires_at=now + timedelta(seconds=limit.seconds))
        .on_conflict(
            conflict_target=[Throttle.bucket],
            update={
                Throttle.used: pw.Case(None, [(empty, 1)], Throttle.used + 1),
                Throttle.expires_at: pw.Case(
                    None, [(empty, pw.EXCLUDED.expires_at)], Throttle.expires_at
                ),
            },
            where=empty | (Throttle.used < limit.most),
        )
        .returning(Throttle.expires_at)
        .execute()
    )
    return next((row.expires_at for row in rows), None)


@atomic
def _take_back(booked: list[tuple[str, datetime]]) -> None:
    for bucket, end in booked:
        same = (Throttle.bucket == bucket) & (Throttle.expires_at == end)
        Throttle.update(used=Throttle.used - 1).where(same).execute()


def _too_many(bucket: str, ends: datetime | None) -> Failure:
    if ends is None:
        row = Throttle.get_or_none(Throttle.bucket == bucket)
        ends = row.expires_at if row else clock.now()
    left = ceil((ends - clock.now()).total_seconds())
    return Failure("rate_limited", "Too many attempts. Try again later.", retry_after=max(1, left))


def _is_known(account: User | str, addresses: list[str]) -> bool:
    """True if the user used one of these lately: others cannot lock them out there."""
    since = clock.now() - KNOWN_FOR
    return (
        isinstance(account, User)
        and KnownAddress.select()
        .where(
            (KnownAddress.user == account)
            & KnownAddress.address.in_(addresses)
            & (KnownAddress.last_used_at > since)
        )
        .exists()
    )


def _by_mail(address: str) -> str:
    """How an address is remembered at which the user read their mail, and did not sign in yet."""
    return f"{address} by mail"


def _who(account: User | str) -> str:
    """The account as its buckets name it: one for all names of a user."""
    return f"user {account.id}" if isinstance(account, User) else f"name {_folded(account)}"


def _hashes_as(account: User | str) -> Account:
    """The account as the hasher knows it."""
    return account.id if isinstance(account, User) else account.lower()


def _folded(name: str) -> str:
    """The name of nobody in the spelling under which it would be unique."""
    try:
        return users.fold_email(name)
    except ValueError:
        return name.lower()


def prune(limit: int) -> int:
    """Delete at most `limit` rows of each table that mean nothing any more; how many they were."""
    now = clock.now()
    return sum(
        delete_some(query, limit)
        for query in (
            Throttle.select().where(Throttle.expires_at <= now),
            KnownAddress.select().where(KnownAddress.last_used_at <= now - KNOWN_FOR),
        )
    )
