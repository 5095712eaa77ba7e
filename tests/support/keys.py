"""API keys: their limits and quotas, and what is decided of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .apps import service_of
from .people import Person, by_key


def path_of(key: dict[str, Any]) -> str:
    return f"/v1/api-keys/{key['id']}"


def limit(most: int, seconds: int = 3600) -> dict[str, int]:
    return {"limit": most, "window_seconds": seconds}


def me(client: FlaskClient, key: dict[str, Any], **kwargs: Any) -> TestResponse:
    return client.get("/v1/auth/me", headers=by_key(key["key"]), **kwargs)


def codes(asker: Person, key: dict[str, Any], times: int, **asked: Any) -> dict[str, int]:
    """How often what was decided of the key."""
    return dict(Counter(verify(asker, key["key"], **asked)["code"] for _ in range(times)))


def quota(remaining: int, amount: int | None = None, interval: str | None = None) -> dict[str, Any]:
    return {"remaining": remaining, "refill_amount": amount, "refill_interval": interval}


def left(owner: Person, key: dict[str, Any]) -> int:
    """What the owner reads of what is left."""
    return owner.get(path_of(key)).json["quota"]["remaining"]


def verify(asker: Person, key: str, **asked: Any) -> dict[str, Any]:
    """What is decided of the key."""
    answer = asker.post("/v1/api-keys/verify", {"key": key, **asked})
    assert answer.status_code == 200, answer.json
    return answer.json


def flush(app: Flask) -> None:
    """Write what is written behind."""
    service_of(app).periodic_tasks.run()
