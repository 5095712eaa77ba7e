"""config/nginx.conf behind another proxy, as on a host that ends TLS before compose.yaml."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from backend.core.settings import ROOT

from ..support.apps import client_of
from ..support.people import PASSWORD, add_user, by_token
from ..support.processes import Process, free_port, nginx
from .serving import Counted, echo, serving

# As the documentation of nginx has it; it says that its client came by https.
OUTER = """
events {}
http {
    server {
        listen 127.0.0.1:%d;
        location / {
            proxy_pass http://127.0.0.1:%d;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
        }
    }
}
"""
FORGED = {
    "X-Forwarded-For": "203.0.113.9, 127.0.0.1",
    "X-Forwarded-Prefix": "/forged",
    "X-Forwarded-Host": "forged.example",
}


@contextlib.contextmanager
def two_proxies(application: int, folder: Path) -> Iterator[Process]:
    """The outer of two proxies before the application on this port."""
    inner, outer = free_port(), free_port()
    text = (ROOT / "config" / "nginx.conf").read_text("utf-8")
    text = text.replace("listen 8080", f"listen 127.0.0.1:{inner}")
    for name in ("app1:8000", "app2:8000"):
        text = text.replace(name, f"127.0.0.1:{application}")
    folders = [folder / "inner", folder / "outer"]
    for each in folders:
        each.mkdir()
    with (
        Process(nginx(text, folders[0]), inner, folder / "inner.log"),
        Process(nginx(OUTER % (outer, inner), folders[1]), outer, folder / "outer.log") as front,
    ):
        yield front


def ask(
    front: Process, client: str, method: str, path: str, body: Any = None, **headers: str
) -> Any:
    """(status, headers, JSON) of the answer to a client at this address, which forges headers."""
    connection = front.connect(source_address=(client, 0))
    sent = {**FORGED, "Content-Type": "application/json", **headers}
    connection.request(method, path, body and json.dumps(body), sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(text)


@pytest.fixture
def service(make_app: Callable[..., Flask]) -> Counted:
    """A service that believes the proxies on this machine."""
    return Counted(make_app(trusted_proxies="127.0.0.1"))


def test_each_client_behind_two_proxies_keeps_its_own_address(
    service: Counted, tmp_path: Path
) -> None:
    add_user(client_of(service.app), "alice")
    with serving(service) as port, two_proxies(port, tmp_path) as front:
        login = {"username": "alice", "password": PASSWORD}
        for client in ("127.0.0.2", "127.0.0.3"):
            status, _, signed_in = ask(front, client, "POST", "/v1/auth/login", login)
            assert status == 200
        token = by_token(signed_in["access_token"])
        _, _, sessions = ask(front, "127.0.0.3", "GET", "/v1/auth/sessions", **token)
        assert [each["ip"] for each in sessions["items"]] == ["127.0.0.3", "127.0.0.2"]
        _, headers, _ = ask(front, "127.0.0.3", "POST", "/v1/api-keys", {"name": "k"}, **token)
        assert headers["Location"].startswith("/v1/api-keys/")


def test_the_scheme_comes_from_the_proxy_before_and_nothing_from_the_client(tmp_path: Path) -> None:
    with serving(echo) as port, two_proxies(port, tmp_path) as front:
        _, _, seen = ask(front, "127.0.0.2", "GET", "/200", Host="accounts.example")
    told = {name: text for name, text in seen["headers"].items() if "FORWARDED" in name}
    assert told == {
        "X_FORWARDED_FOR": "203.0.113.9, 127.0.0.1, 127.0.0.2, 127.0.0.1",
        "X_FORWARDED_PROTO": "https",
        "X_FORWARDED_HOST": "accounts.example",
    }
