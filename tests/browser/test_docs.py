"""The documentation pages in a real browser, under another address than PUBLIC_URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from ..support.apps import client_of
from ..support.concurrency import until
from ..support.people import Person
from .chromium import Chromium
from .serving import PREFIX, served

PUBLIC = "https://accounts.example.com"


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> Iterator[FlaskClient]:
    """A client of an app that is served elsewhere than PUBLIC_URL says."""
    with served(make_app, public_url=PUBLIC) as (app, port):
        app.config["ADDRESS"] = f"http://localhost:{port}{PREFIX}"
        yield client_of(app)


@pytest.fixture
def address(client: FlaskClient) -> str:
    """Where it is served."""
    return client.application.config["ADDRESS"]


def click(page: Chromium, element: str) -> None:
    """Click on the element that a selector names, as soon as it is there."""
    until(lambda: page.run(f"!!document.querySelector({element!r})"))
    page.run(f"document.querySelector({element!r}).click()")


def text_of(page: Chromium, element: str) -> str:
    """The text of the element that a selector names, as soon as it is there."""
    until(lambda: page.run(f"!!document.querySelector({element!r})"))
    return page.run(f"document.querySelector({element!r}).innerText")


def execute(page: Chromium, operation: str) -> None:
    """Try an operation as Swagger UI fills it in, and see that it was asked at this address."""
    place = f"[id$={operation}]"
    for button in (".opblock-summary-control", ".try-out__btn", ".execute"):
        click(page, f"{place} {button}")
    status = text_of(page, f"{place} .live-responses-table tbody .response-col_status")
    assert status.startswith("200"), page.shows()


def test_trying_it_out_works_as_filled_in_under_another_host_name_and_a_prefix(
    page: Chromium, address: str, root: Person
) -> None:
    page.open(f"{address}/v1/docs")
    click(page, ".btn.authorize")
    until(lambda: page.run("!!document.querySelector('#auth-bearer-value')"))
    page.type("#auth-bearer-value", root.access_token)
    click(page, ".auth-container .authorize")
    click(page, ".auth-container .btn-done")
    assert text_of(page, ".servers").strip() == address
    execute(page, "auth_me")
    assert f"{address}/v1/auth/me" in text_of(page, "[id$=auth_me] .request-url pre")
    execute(page, "users_list_users")
    assert '"username": "root"' in text_of(page, "[id$=users_list_users] .highlight-code")


def test_redoc_shows_the_document_and_fetches_nothing_from_elsewhere(
    page: Chromium, address: str
) -> None:
    page.open(f"{address}/v1/redoc")
    until(lambda: "Accounts, sessions and API keys for your services." in page.shows())
    until(lambda: "/v1/auth/login" in page.shows())


def test_swagger_ui_is_dark_when_the_system_is(page: Chromium, address: str) -> None:
    page.open(f"{address}/v1/docs")
    until(lambda: "/v1/auth/login" in page.shows())

    def background() -> str:
        return str(page.run("getComputedStyle(document.documentElement).backgroundColor"))

    def prefer(scheme: str) -> None:
        preferred = {"name": "prefers-color-scheme", "value": scheme}
        page.call("Emulation.setEmulatedMedia", features=[preferred])

    prefer("light")
    until(lambda: "dark-mode" not in page.run("document.documentElement.className"))
    light = background()
    prefer("dark")
    until(lambda: background() != light)
    prefer("light")
    until(lambda: background() == light)
    page.call("Emulation.setEmulatedMedia", features=[])
