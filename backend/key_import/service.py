"""Import keys from another system by their digests: check all of them first, then store them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import peewee as pw

from .. import services
from ..api_keys import queries, recording, rotation
from ..api_keys import service as keys
from ..api_keys.models import ApiKey, ApiKeySecret
from ..core import clock
from ..core.errors import Conflict, Failure, Invalid, NotFound
from ..core.identity import Identity
from ..db.database import atomic, insert_all

BATCH = 200  # keys at a time


class Draft(NamedTuple):
    """A key that is not stored yet, its secret, and all digests by which it can be found."""

    key: ApiKey
    secret: ApiKeySecret
    digests: list[str]


def draft(
    actor: Identity,
    owner: Any,
    *,
    digest: str,
    hint: str = "imported",
    created_at: datetime | None = None,
    **wanted: Any,
) -> Draft:
    """Draft a key for the owner, given only the `digest` of its text (see keyring.read_digest).

    Makes the checks of `keys.issue` that do not depend on other keys.
    """
    key, now = keys.draft(actor, owner, **wanted), clock.now()
    if created_at is not None and created_at > now:
        raise Invalid("created_at", "Must not be in the future.")
    key.created_at, key.enabled_at = created_at or now, now
    digests = services.current().keyring.key_digests(digest)
    secret = rotation.secret_of(hint, *digests[0])
    secret.key, key.current_secret = key, secret.id
    return Draft(key, secret, [text for _, text in digests])


def refusals(drafts: Mapping[int, Draft]) -> dict[int, Failure]:
    """Return the drafts that cannot be stored after those before them, by number, with the reason.

    Conflict `conflict` means that the key already exists; for `limit_reached`, see `keys.issue`.
    """
    existing: set[str] = set()
    kept: Counter[UUID] = Counter()  # how many keys each owner has
    # A few at a time, because the number of a statement's parameters is limited.
    for some in pw.chunked(drafts.values(), BATCH):
        digests = [digest for each in some for digest in each.digests]
        found = ApiKeySecret.select(ApiKeySecret.digest).where(ApiKeySecret.digest.in_(digests))
        existing.update(digest for (digest,) in found.tuples())
        owners = {each.key.owner_id for each in some}
        kept.update(keys.count_kept(owners - kept.keys()))
    refused: dict[int, Failure] = {}
    for number, each in drafts.items():
        try:
            if not existing.isdisjoint(each.digests):
                raise Conflict("conflict", "This key already exists.")
            keys.require_room(kept[each.key.owner_id])
        except Conflict as refusal:
            refused[number] = refusal
        else:
            kept[each.key.owner_id] += 1
            existing.update(each.digests)
    return refused


def store(actor: Identity, drafts: Mapping[int, Draft]) -> dict[int, Failure]:
    """Store the drafts, except for those that it returns, by number, with the reason.

    Runs in one transaction, for which other writers wait: pass at most BATCH drafts.
    """
    try:
        return _store(actor, drafts)
    except pw.IntegrityError:  # another import has just stored one of them, which now counts
        return _store(actor, drafts)


@atomic
def _store(actor: Identity, drafts: Mapping[int, Draft]) -> dict[int, Failure]:
    present = queries.hold_owners({each.key.owner_id for each in drafts.values()})
    refused: dict[int, Failure] = {
        number: NotFound("The owner does not exist.")
        for number, each in drafts.items()
        if each.key.owner_id not in present
    }
    owned = {number: each for number, each in drafts.items() if number not in refused}
    refused |= refusals(owned)
    taken = [each for number, each in owned.items() if number not in refused]
    insert_all([each.key for each in taken])
    insert_all([each.secret for each in taken])
    recording.record(actor, "key.import", *[each.key for each in taken])
    return refused
