"""Throttles limit how often a password or a code may be guessed; the database counts.

Only failures count. Each guess is booked before it is checked and taken back if it was right, so
that of many concurrent guesses no more are checked than the limit allows, in all processes together
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
from ..core.email_addresses import fold_email
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
    """Allow one guess at the account's password, or at a `code`, from the present address.

    The block raises InvalidCredentials or Forbidden for a wrong guess: it counts then, and a failed
    `action` is recorded. `account` is the name that was given if there is no such user: it has
    limits too, or the difference would give it away. Failure `rate_limited` after too many guesses.
    """
    if not code:  # before any write: clients without a slot retry immediately
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
    """Return the actor's row if `password` is theirs, as an attempt at `action`; else Forbidden."""
    user = users.get(actor, actor.user_id)
    with attempt(user, action, actor):
        if not is_password(user, password):
            raise wrong_password()
    return user


def is_password(account: User | str, password: str) -> bool:
    """True if it is the account's password; takes equally long for an unknown name."""
    stored = account.password_hash if isinstance(account, User) else None
    return services.current().password_hasher.verify(password, stored, _hashes_as(account))


def wrong_password() -> Forbidden:
    """The error for a wrong `current_password`; the session goes on."""
    return Forbidden("wrong_password", "The current password is wrong.")


def wrong_code() -> Forbidden:
    """The error for a wrong code from a signed-in user; the session goes on."""
    return Forbidden("wrong_code", "The code is wrong, has been used, or is too old.")


def allow(what: str, limit: Limit) -> bool:
    """Use up one unit of the limit of `what`; False if none is left."""
    return _use(services.current().keyring.blind(what), limit) is not None


def spend(what: str, limit: Limit) -> None:
    """Like `allow`, but raise Failure `rate_limited`, with the seconds to wait, if none is left."""
    if not allow(what, limit):
        raise _too_many(services.current().keyring.blind(what), None)


def allow_from_here(what: str, limit: Limit) -> bool:
    """Like `allow`, for requests from the present address.

    Most of a flood ends with one read, and costs no write.
    """
    bucket = services.current().keyring.blind(f"{what} from {context.network()}")
    full = (Throttle.used >= limit.most) & (Throttle.expires_at > clock.now())
    if Throttle.select().where((Throttle.bucket == bucket) & full).exists():
        return False
    return _use(bucket, limit) is not None


def use_up(what: str, limit: Limit) -> None:
    """Use up all that is left of the limit of `what`."""
    bucket, now = services.current().keyring.blind(what), clock.now()
    Throttle.insert(
        bucket=bucket, used=limit.most, expires_at=now + timedelta(seconds=limit.seconds)
    ).on_conflict(conflict_target=[Throttle.bucket], update={Throttle.used: limit.most}).execute()


def remember_address(user: User) -> None:
    """Remember that the user signed in from the present address."""
    _remember(user, context.network())


def _remember(user: User, address: str) -> None:
    now = clock.now()
    KnownAddress.insert(user=user, address=address, last_used_at=now).on_conflict(
        conflict_target=[KnownAddress.user, KnownAddress.address],
        update={KnownAddress.last_used_at: now},
    ).execute()


def clear_failures(user: User) -> None:
    """Forget failed guesses at the user's account: the day's, and those from this address."""
    who, blind = _who(user), services.current().keyring.blind
    # In the order in which guesses are booked, so that the two never deadlock.
    for bucket in (blind(f"{who} from {context.network()}"), blind(who)):
        Throttle.delete().where(Throttle.bucket == bucket).execute()


def trust_address(user: User) -> None:
    """Let the user sign in from the present address, however many failures others have caused.

    For a user who has just proved, by a link or a code, that they read the account's mail. An
    intruder who reads that mail still has to guess the second factor, and gets no extra guesses:
    failed codes are also counted separately, and this function does not affect that count.
    """
    clear_failures(user)
    _remember(user, _by_mail(context.network()))


def _book(account: User | str, *, code: bool) -> list[tuple[str, datetime]]:
    """Book this attempt: return the buckets that count it, with their ends.

    Raises Failure if one of them is full.
    """
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

    # Most of a flood ends here, without a write and without building a query.
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
    """Count one more in each bucket and return when each empties; call `refuse` for full ones.

    All callers take the buckets in the same order, so that no two deadlock.
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
    """Count one more in the bucket, in one statement; return when it empties.

    Returns None if it is full.
    """
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
    """True if the user used one of these lately, so that others cannot lock them out there."""
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
    """Name an address at which the user read their mail but has not signed in yet."""
    return f"{address} by mail"


def _who(account: User | str) -> str:
    """The account's name in its buckets: one for all names of a user."""
    return f"user {account.id}" if isinstance(account, User) else f"name {_folded(account)}"


def _hashes_as(account: User | str) -> Account:
    """The account as the hasher knows it."""
    return account.id if isinstance(account, User) else account.lower()


def _folded(name: str) -> str:
    """Return an unknown name in the form in which it would be unique."""
    try:
        return fold_email(name)
    except ValueError:
        return name.lower()


def prune(limit: int) -> int:
    """Delete at most `limit` outdated rows from each table; return how many in total."""
    now = clock.now()
    return sum(
        delete_some(query, limit)
        for query in (
            Throttle.select().where(Throttle.expires_at <= now),
            KnownAddress.select().where(KnownAddress.last_used_at <= now - KNOWN_FOR),
        )
    )
