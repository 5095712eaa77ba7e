"""A flood of logins leaves the rest of the service as fast as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import pytest

from backend.core.settings import ROOT

from ..support.load import CLIENTS
from ..support.long_runs import FULL, UNTHROTTLED, Site, at
from ..support.people import PASSWORD, add_user, by_key, by_token, sign_in
from ..support.servers import Server
from .probes import SECONDS, probes


def begin(server: Server, clients: int, password: str, *names: str) -> subprocess.Popen[bytes]:
    """So many clients that sign in as these, for a little longer than SECONDS."""
    about = [server.port, SECONDS + 1, clients, password, *names]
    command = [sys.executable, "-m", "tests.attack.flood", *map(str, about)]
    flood = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    time.sleep(0.5)
    return flood


@pytest.mark.parametrize("aim", ["many names", "one name"] if FULL else ["many names"])
@pytest.mark.parametrize("throttles", [UNTHROTTLED, {}], ids=["none", "default"])
def test_a_flood(
    make_site: Callable[..., Site],
    figure: Callable[[str, str], None],
    aim: str,
    throttles: dict[str, str],
) -> None:
    client, [server] = make_site(bcrypt_rounds=12, **throttles)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    credentials = [by_key(alice.new_key()["key"]), by_token(alice.access_token)]
    quiet = probes(server, credentials)
    figure("without a flood, p50 p99", f"{median(quiet):.1f} ms, {at(0.99, quiet):.1f} ms")
    names = ["alice"] if aim == "one name" else [f"name{number}" for number in range(1000)]
    flood = begin(server, CLIENTS, "not the right password", *names)
    found = probes(server, credentials)
    answers = json.loads(flood.communicate()[0])
    figure("p50 p99", f"{median(found):.1f} ms, {at(0.99, found):.1f} ms")
    for status, times in answers.items():
        spread = f"p50 {median(times):.1f} ms, p95 {at(0.95, times):.1f} ms"
        figure(f"logins {status}", f"{len(times):,}, {spread}")
    assert set(answers) <= {"401", "429", "503"}
    if FULL and throttles:  # on a machine that does nothing else
        assert median(found) <= 25
        assert at(0.99, found) <= 100
        assert median(answers["503"]) <= 50


def sign_ins(server: Server, seconds: float) -> list[float]:
    """Milliseconds that Alice and Bob took to sign in, one after the other, for so long."""
    taken: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter()
        body = json.dumps({"username": ("alice", "bob")[len(taken) % 2], "password": PASSWORD})
        assert server.ask("POST", "/v1/auth/login", body).status == 200
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
def test_one_account_that_signs_in_in_a_loop_keeps_nobody_else_from_it(
    make_site: Callable[..., Site], figure: Callable[[str, str], None], kind: str
) -> None:
    client, [server] = make_site(kind, bcrypt_rounds=12 if FULL else 10)
    for name in ("mallory", "alice", "bob"):
        add_user(client, name)
    quiet = sign_ins(server, SECONDS / 5)
    figure("without the loop, p50 p95", f"{median(quiet):.0f} ms, {at(0.95, quiet):.0f} ms")
    loop = begin(server, 8, PASSWORD, "mallory")
    others = sign_ins(server, SECONDS)
    looped = json.loads(loop.communicate()[0])
    assert looped.keys() == {"200", "503"}
    figure("p50 p95", f"{median(others):.0f} ms, {at(0.95, others):.0f} ms")
    figure("sign-ins of others, of the loop", f"{len(others)}, {len(looped['200'])}")
    assert at(0.95, others) < 2000
