"""Recording what a running service notices, and reporting it."""

from __future__ import annotations

from datetime import timedelta

from ..core import clock, context
from .models import Notice

FORWARDED = "forwarded"  # headers of a proxy that is not trusted

_SENTENCES = {
    FORWARDED: "Requests arrive with X-Forwarded-For, but TRUSTED_PROXIES does not name the proxy"
    " that sends it: all clients appear to have one address. Name it, or drop the header there.",
}
_LATELY = timedelta(days=7)


def note_forwarded() -> None:
    """Remember that headers arrive from a proxy that is not trusted."""
    now = clock.now()
    Notice.insert(name=FORWARDED, seen_at=now).on_conflict(
        conflict_target=[Notice.name], update={Notice.seen_at: now}
    ).execute()


def warnings() -> list[str]:
    """Return a sentence for each notice of the last seven days, for `flask doctor`."""
    lately = Notice.select().where(Notice.seen_at > clock.now() - _LATELY).order_by(Notice.name)
    names = {notice.name for notice in lately}
    if context.settings().trusted_proxies:
        names.discard(FORWARDED)  # noticed before the setting was made
    return [_SENTENCES[name] for name in sorted(names)]
