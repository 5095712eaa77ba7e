"""How long signing in takes must not tell which accounts there are."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from statistics import median

from backend.users import service as users

from ..support.apps import service_of
from ..support.long_runs import FULL, UNTHROTTLED, Site
from ..support.mfa import enrol
from ..support.people import PASSWORD, add_user, sign_in
from ..support.servers import Server

TRIES = 300 if FULL else 40
ROUNDS = 12 if FULL else 10


def milliseconds(server: Server, path: str, body: dict[str, str], expected: int) -> float:
    """How long the answer took."""
    begun = time.perf_counter()
    answer = server.ask("POST", path, json.dumps(body))
    taken = (time.perf_counter() - begun) * 1000
    assert answer.status == expected, answer
    return taken


def compare(
    server: Server, path: str, bodies: dict[str, dict[str, str]], expected: int
) -> dict[str, float]:
    """The median of each body's times, taken in turns in random order."""
    times: dict[str, list[float]] = {name: [] for name in bodies}
    turns = [*bodies] * TRIES
    random.shuffle(turns)
    for name in turns:
        times[name].append(milliseconds(server, path, bodies[name], expected))
    return {name: median(found) for name, found in times.items()}


def test_signing_in_in_vain(
    make_site: Callable[..., Site], figure: Callable[[str, str], None]
) -> None:
    client, [server] = make_site(bcrypt_rounds=ROUNDS, **UNTHROTTLED)
    for name in ("wrong", "disabled", "second"):
        add_user(client, name)
    add_user(client, "service", kind="service", password=None)
    add_user(client, "invited", password=None)
    enrol(sign_in(client, "second"))
    service = service_of(client.application)
    with service.active():
        users.User.update(is_active=False).where(users.User.username == "disabled").execute()
        service.database.close()
    names = ("unknown", "wrong", "disabled", "second", "service", "invited")
    bodies = {name: {"username": name, "password": f"{PASSWORD}!"} for name in names}
    bodies["disabled"]["password"] = PASSWORD
    # What tells in truth tells each time; what the machine does meanwhile does not.
    assert any(is_alike(server, bodies, figure) for _ in range(1 if FULL else 3))


def is_alike(
    server: Server, bodies: dict[str, dict[str, str]], figure: Callable[[str, str], None]
) -> bool:
    """True if no median differs from another by more than is allowed."""
    found = compare(server, "/v1/auth/login", bodies, 401)
    for name, taken in found.items():
        figure(f"median of {TRIES}, {name}", f"{taken:.2f} ms")
    spread = max(found.values()) - min(found.values())
    allowed = max(5, 0.05 * found["unknown"])
    figure("spread, allowed", f"{spread:.2f} ms, {allowed:.2f} ms")
    return spread <= allowed


def test_asking_for_a_reset(
    make_site: Callable[..., Site], figure: Callable[[str, str], None]
) -> None:
    client, [server] = make_site(**UNTHROTTLED)
    add_user(client, "known")
    bodies = {name: {"email": f"{name}@example.com"} for name in ("known", "unknown")}
    found = compare(server, "/v1/auth/password/forgot", bodies, 202)
    for name, taken in found.items():
        figure(f"median of {TRIES}, {name}", f"{taken:.2f} ms")
    assert abs(found["known"] - found["unknown"]) <= max(5, 0.05 * found["unknown"])
