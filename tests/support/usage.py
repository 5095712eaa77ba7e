"""How often API keys were used."""

from __future__ import annotations

from typing import Any

from flask import Flask

from backend.key_usage.service import write_usage

from .apps import service_of
from .people import Person


def flush(*apps: Flask) -> None:
    """Write what the apps have counted."""
    for app in apps:
        service_of(app).write_behind[write_usage].flush()


def usage(person: Person, key: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    """What is told of the key's use, as soon as it is written."""
    flush(person.client.application)
    response = person.get(f"/v1/api-keys/{key['id']}/usage{query}")
    assert response.status_code == 200, response.json
    return response.json["items"]


def counts(person: Person, key: dict[str, Any]) -> dict[str, int]:
    """How often each thing was decided of the key in the last 30 days."""
    total: dict[str, int] = {}
    for item in usage(person, key, "?interval=day"):
        for code, times in {"valid": item["valid"], **item["denied"]}.items():
            total[code] = total.get(code, 0) + times
    return total
