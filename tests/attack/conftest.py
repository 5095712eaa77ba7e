"""The whole form or the short one, and limits that are not in the way."""

from __future__ import annotations

import os

from ..long_runs import Site, figure, make_site, pytest_terminal_summary, site_on

__all__ = ["Site", "figure", "make_site", "pytest_terminal_summary", "site_on"]

FULL = os.environ.get("ATTACK") == "full"
MANY = "1000000/300"  # a limit that nobody comes to
UNTHROTTLED = {
    "login_attempts": MANY,
    "login_attempts_per_address": MANY,
    "login_attempts_per_account": MANY,
}
