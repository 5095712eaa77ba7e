"""What long runs share: server processes on one database, and the table of what was measured."""

from __future__ import annotations

import os

from flask.testing import FlaskClient

from .servers import Server

FULL = "full" in {os.environ.get("ATTACK"), os.environ.get("FAULTS")}
Site = tuple[FlaskClient, list[Server]]


def at(share: float, values: list[float]) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


MANY = "1000000/300"  # a limit that nobody comes to
UNTHROTTLED = {
    "login_attempts": MANY,
    "login_attempts_per_address": MANY,
    "login_attempts_per_account": MANY,
}
