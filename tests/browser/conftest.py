"""A browser, and a server of this machine for what it looks at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from ..support.apps import client_of
from .chromium import Chromium
from .serving import served

BINARY = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")

if os.environ.get("CI") == "true" and not BINARY:
    raise pytest.UsageError("CI=true: name a Chromium in TEST_CHROMIUM, no test may be skipped")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser for all tests of this process."""
    if not BINARY:
        pytest.skip("no Chromium; TEST_CHROMIUM may name one")
    browser = Chromium(BINARY, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Chromium) -> Iterator[Chromium]:
    """The browser, in which no test may leave a complaint about code or the policy."""
    browser.open("about:blank")
    browser.complaints.clear()
    yield browser
    assert [each for each in browser.complaints if "status of 4" not in each] == []


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> Iterator[FlaskClient]:
    """A client of an app that is served under PREFIX."""
    with served(make_app) as (app, _):
        yield client_of(app)
