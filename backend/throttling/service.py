"""Limit how often passwords and codes may be guessed, counting failures in the database.

Each guess is counted before it is checked, and uncounted if it was right. So even of many
concurrent guesses, in all processes together, no more are checked than the limit allows (NIST SP
800-63B section 3.2.2; ASVS 5.0 6.3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from .. import services
from ..audit import service as audit
from ..core import clock, context
from ..core.email_addresses import fold_email
from ..core.errors import Forbidden, InvalidCredentials
from ..core.identity import Identity
from ..crypto.passwords import Account
from ..db.database import db_time, delete_some, execute, from_db_time
from ..users import service as users
from ..users.models import User
from . import limits
from .models import KnownAddress, Throttle

KNOWN_FOR = timedelta(days=30)  # how long an address is remembered

_USED = "SELECT bucket, used, expires_at FROM throttles WHERE bucket IN ({}) AND expires_at > ?"


@contextmanager
def attempt(
    account: User | str, action: str, actor: Identity | None = None, *, code: bool = False
) -> Iterator[None]:
    """Allow one guess at the account's password, or at a `code`, from the current address.

    The block must raise InvalidCredentials or Forbidden for a wrong guess, which is then counted
    and recorded as a failed `action`. For an unknown user, `account` is the name that was given: it
    has the same limits, so that they do not reveal which accounts exist. Raises Failure
    `rate_limited` after too many guesses.
    """
    if not code:  # before any write: clients without a slot retry immediately
        services.current().password_hasher.require_place(_hashes_as(account))
    counted = _count(account, code=code)
    try:
        yield
    except (InvalidCredentials, Forbidden) as refusal:
        target = ("user", account.id) if isinstance(account, User) else None
        audit.record(actor, action, outcome="failure", target=target, code=refusal.code)
        raise
    except BaseException:
        limits.uncount(counted)
        raise
    limits.uncount(counted)


def require_password(actor: Identity, password: str, action: str) -> User:
    """Return the actor's row if the password is right, or raise Forbidden.

    A wrong one counts as a failed `action`.
    """
    user = users.get(actor, actor.user_id)
    with attempt(user, action, actor):
        if not is_password(user, password):
            raise wrong_password()
    return user


def is_password(account: User | str, password: str) -> bool:
    """Return whether the password is right. Takes the same time for an unknown name."""
    stored = account.password_hash if isinstance(account, User) else None
    return services.current().password_hasher.verify(password, stored, _hashes_as(account))


def wrong_password() -> Forbidden:
    """Return the error for a wrong `current_password`, which does not end the session."""
    return Forbidden("wrong_password", "The current password is wrong.")


def wrong_code() -> Forbidden:
    """Return the error for a wrong code from a signed-in user, which does not end the session."""
    return Forbidden("wrong_code", "The code is wrong, has been used, or is too old.")


def remember_address(user: User) -> None:
    """Remember that the user signed in from the current address."""
    _remember(user, context.network())


def _remember(user: User, address: str) -> None:
    now = clock.now()
    KnownAddress.insert(user=user, address=address, last_used_at=now).on_conflict(
        conflict_target=[KnownAddress.user, KnownAddress.address],
        update={KnownAddress.last_used_at: now},
    ).execute()


def clear_failures(user: User) -> None:
    """Forget failed guesses at the account: those of the day, and those from this address."""
    who, blind = _who(user), services.current().keyring.blind
    # In the order in which guesses are counted, so that the two never deadlock.
    for bucket in (blind(f"{who} from {context.network()}"), blind(who)):
        Throttle.delete().where(Throttle.bucket == bucket).execute()


def trust_address(user: User) -> None:
    """Let the user sign in from the current address, however many failures others have caused.

    Call this for a user who has just proved, with a link or a code, that they can read the
    account's mail. An intruder who can read it too still has to guess the second factor, and gets
    no extra guesses: failed codes are also counted separately, and that count stays.
    """
    clear_failures(user)
    _remember(user, _by_mail(context.network()))


def _count(account: User | str, *, code: bool) -> list[tuple[str, datetime]]:
    """Count this attempt; return the buckets that count it, and when each empties.

    Raises Failure if one of them is full.
    """
    settings, blind = context.settings(), services.current().keyring.blind
    who, address = _who(account), context.network()
    allowed = {
        blind(f"{who} from {address}"): settings.login_attempts,
        blind(f"address {address}"): settings.login_attempts_per_address,
        blind(who): settings.login_attempts_per_account,
    }
    exempt = {blind(who): [address, _by_mail(address)]}
    if code:
        allowed[blind(f"codes of {who}")] = settings.login_attempts_per_account
        exempt[blind(f"codes of {who}")] = [address]

    def refuse(bucket: str, ends: datetime | None = None) -> None:
        if bucket not in exempt or not _is_known(account, exempt[bucket]):
            raise limits.too_many(bucket, ends)

    # Most of a flood ends here, without a write and without building a query.
    statement = _USED.format(", ".join("?" * len(allowed)))
    rows = execute(statement, *allowed, db_time(clock.now())).fetchall()
    used = {bucket: (times, from_db_time(ends)) for bucket, times, ends in rows}
    for bucket, limit in allowed.items():
        times, ends = used.get(bucket, (0, None))
        if times >= limit.most:
            refuse(bucket, ends)
    return limits.use_all(allowed, refuse)


def _is_known(account: User | str, addresses: list[str]) -> bool:
    """Return whether the user recently used one of these. Others cannot lock them out there."""
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
    """Return what is stored for an address from which the user has so far only read their mail."""
    return f"{address} by mail"


def _who(account: User | str) -> str:
    """Return the account's name in buckets, which is the same for all names of a user."""
    return f"user {account.id}" if isinstance(account, User) else f"name {_folded(account)}"


def _hashes_as(account: User | str) -> Account:
    """Return the name by which the password hasher knows the account."""
    return account.id if isinstance(account, User) else account.lower()


def _folded(name: str) -> str:
    """Return the form of an unknown name that would be unique."""
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
