"""A property-based run against the OpenAPI document: no 5xx, nothing that is not documented.

FUZZ_EXAMPLES is the number of requests in all, over all operations and databases.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from backend.app import create_app

from ..support.apps import client_of
from ..support.databases import ENGINES, POSTGRES_URL
from ..support.people import add_user, by_key, sign_in
from ..support.settings import make_settings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DOCUMENT = client_of(create_app(make_settings())).get("/v1/openapi.json").json
OPERATIONS = [
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method != "parameters"
]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1500"))
EACH = max(4, EXAMPLES // len(OPERATIONS) // (len(ENGINES) if POSTGRES_URL else 1))

# The thread that sends mail draws random numbers while an input is made.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda each: each.strip("/"))
def test_no_input_provokes_what_is_not_documented(
    make_app: Callable[..., Flask], path: str, method: str
) -> None:
    app = make_app(max_keys_per_user=1_000_000)
    client = client_of(app)
    document = schemathesis.openapi.from_wsgi("/v1/openapi.json", app)
    responses = document.raw_schema["paths"][path][method]["responses"]
    responses.pop("default", None)  # it allows all statuses
    operation = document[path][method.upper()]
    right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
    turns = itertools.count()

    @given(case=right | wrong)
    @settings(
        max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def attempt(case: schemathesis.Case) -> None:
        # In turn: somebody who may do everything, with things that exist; a key; nobody.
        number = next(turns)
        turn = number % 4
        add_user(client, f"root{number}", role="admin")  # the one before may be signed out, or gone
        root = sign_in(client, f"root{number}")
        headers = {} if turn == 2 else root.headers
        if turn == 1:
            headers = by_key(root.new_key(scopes=["keys:*", "users:*", "tokens:*"])["key"])
        if turn < 2 and "{key_id}" in path:
            case.path_parameters["key_id"] = root.new_key()["id"]
        if turn < 2 and "{user_id}" in path:
            case.path_parameters["user_id"] = root.id
        case.call_and_validate(headers=headers, checks=CHECKS)

    attempt()
