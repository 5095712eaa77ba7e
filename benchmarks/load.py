"""Load: wrk sends the requests of a workload to a server, over a number of connections."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua").read_text("utf-8")
SPARE = 8  # requests of a rotating workload, in addition to one for each connection


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send. A body is JSON unless the headers say otherwise."""

    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests that are sent in turn.

    `rotating`: each has a refresh token that works once, and is sent by one client at a time.
    """

    requests: list[Request]
    rotating: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load: how many requests in how many seconds, and latencies in ms."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int


def ask(path: str, body: object, headers: dict[str, str] | None = None) -> Request:
    """Return a POST of `body` as JSON."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    return Request(path, "POST", headers, json.dumps(body))


def status_of(port: int, request: Request) -> int:
    """Send the request, and return the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(request.method, request.path, request.body, request.headers)
    status = connection.getresponse().status
    connection.close()
    return status


def drive(port: int, work: Workload, connections: int, seconds: int) -> Outcome:
    """Send the workload for `seconds`. A connection sends again once it has read an answer."""
    requests = work.requests[: connections + SPARE] if work.rotating else work.requests
    listed = ", ".join(_lua(asdict(each)) for each in requests)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"work = {{{listed}}}\nrotating = {str(work.rotating).lower()}\n{SCRIPT}")
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout=30"]
        command += [f"-s{script.name}", f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def require_wrk() -> None:
    """Exit with an explanation if wrk is not installed."""
    if not shutil.which("wrk"):
        sys.exit("wrk is needed; on Debian: apt-get install wrk")


def _lua(value: object) -> str:
    """Return `value` as Lua source: texts in ASCII, and tables with text keys."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{_lua(k)}] = {_lua(v)}" for k, v in value.items()) + "}"
    return "nil" if value is None else json.dumps(value)
