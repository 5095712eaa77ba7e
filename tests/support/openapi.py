"""All operations that are documented, and their examples."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from flask.testing import FlaskClient

from .people import Person

NOTHING = "0192d3a4-0000-7d8e-9f01-23456789abcd"  # an id that nothing has


def operations(client: FlaskClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (method, path, operation) of all that is documented; ids in paths are NOTHING."""
    return [
        (method.upper(), re.sub(r"{\w+}", NOTHING, path), operation)
        for path, item in client.get("/v1/openapi.json").json["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def example_of(operation: dict[str, Any]) -> dict[str, Any] | None:
    """Return the example of the JSON body that an operation takes, or None."""
    content = operation.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


def make_others(person: Person, ids: dict[str, str]) -> dict[str, str]:
    """Return `ids`, and those of things of other subjects, which the person makes; or NOTHING.

    Names are those in paths. What POST /v1/notes makes of its example is the thing that
    /v1/notes/{note_id} means.
    """
    found = defaultdict(lambda: NOTHING, ids)
    paths = person.client.get("/v1/openapi.json").json["paths"]
    for path in paths:
        place, name = re.match(r"([^{]*)/{(\w+)}|", path).groups()
        if name and name not in found and "post" in paths.get(place, {}):
            response = person.post(place, example_of(paths[place]["post"]))
            if response.status_code == 201:
                found[name] = response.json["id"]
    return found
