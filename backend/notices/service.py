"""Noting what a running service sees, and telling of it."""

from __future__ import annotations

from datetime import timedelta

from ..core import clock, context
from .models import Notice

FORWARDED = "forwarded"  # a proxy's headers, which nobody said to believe

_SENTENCES = {
    FORWARDED: "Requests arrive with X-Forwarded-For, and TRUSTED_PROXIES does not name who sends"
    " them: all clients look like one address. Name your proxy, or have it drop the header.",
}
_LATELY = timedelta(days=7)


def note_forwarded() -> None:
    """Remember that headers of a proxy arrive which nothing says to believe."""
    now = clock.now()
    Notice.insert(name=FORWARDED, seen_at=now).on_conflict(
        conflict_target=[Notice.name], update={Notice.seen_at: now}
    ).execute()


def doubts() -> list[str]:
    """A sentence for each thing that was seen in the last seven days, for `flask doctor`."""
    lately = Notice.select().where(Notice.seen_at > clock.now() - _LATELY).order_by(Notice.name)
    names = {notice.name for notice in lately}
    if context.settings().trusted_proxies:
        names.discard(FORWARDED)  # it was seen before that was set
    return [_SENTENCES[name] for name in sorted(names)]
