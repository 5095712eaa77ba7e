"""Record problems that a running service notices, and report them."""

from __future__ import annotations

from datetime import timedelta

from ..core import clock, context
from .models import Notice

FORWARDED = "forwarded"  # headers from a proxy that is not trusted

_SENTENCES = {
    FORWARDED: "Requests arrive with X-Forwarded-For, but TRUSTED_PROXIES does not name the proxy"
    " that sends it: all clients appear to have one address. Name the proxy, or have it drop the"
    " header.",
}
_RECENT = timedelta(days=7)


def note_forwarded() -> None:
    """Record that a proxy that is not trusted forwards requests."""
    now = clock.now()
    Notice.insert(name=FORWARDED, seen_at=now).on_conflict(
        conflict_target=[Notice.name], update={Notice.seen_at: now}
    ).execute()


def warnings() -> list[str]:
    """Return a warning for each notice of the last seven days, for `flask doctor`."""
    recent = Notice.select().where(Notice.seen_at > clock.now() - _RECENT).order_by(Notice.name)
    names = {notice.name for notice in recent}
    if context.settings().trusted_proxies:
        names.discard(FORWARDED)  # noticed before it was set
    return [_SENTENCES[name] for name in sorted(names)]
