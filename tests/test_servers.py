"""The servers as real processes: waitress, gunicorn, and the one that reloads."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waitress.buffers import OverflowableBuffer

from backend.core.settings import ROOT
from backend.server.chunked import Chunks
from backend.server.connections import Waiting
from backend.server.listeners import addresses

from .support.concurrency import until
from .support.databases import migrate
from .support.people import PASSWORD
from .support.processes import confined, copy_tree, run
from .support.servers import CHUNKED, COMMANDS, GET, LOGIN_HEAD, Server, command_of, read

pytestmark = pytest.mark.slow

LOGIN = json.dumps({"username": "nobody", "password": PASSWORD}).encode()


class Servers:
    """All three, started side by side on one SQLite database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = copy_tree(folder / "tree")
        self.url = f"sqlite:///{folder / 'test.db'}"
        migrate(self.url)
        self.started = {kind: self.start(kind) for kind in COMMANDS}

    def start(self, kind: str, command: Sequence[str] | None = None, **settings: Any) -> Server:
        """Another process of a kind, started by its own command or by this one."""
        settings = {"database_url": self.url, **settings}
        return Server(kind, self.tree, self.folder, command, **settings)

    def serving(self, kind: str) -> Server:
        """The server of a kind, which answers; another if a test has ended it."""
        if self.started[kind].process.poll() is not None:
            self.started[kind] = self.start(kind)
        return self.started[kind].wait_until_it_serves()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of this module."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    for server in servers.started.values():
        server.end()


@pytest.fixture(params=COMMANDS)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    """Each of the three in turn, serving."""
    return servers.serving(request.param)


def padded(body: bytes, size: int) -> Iterator[bytes]:
    """The body followed by blanks, in pieces of 8 KiB: of unknown length to who reads it."""
    yield body
    for _ in range(size // 8192):
        yield b" " * 8192


# --- serving ---


def test_a_server_serves(server: Server) -> None:
    for path in ("/", "/healthz", "/readyz"):
        assert server.ask("GET", path).status == 200
    assert server.ask("GET", "/v1/auth/me").status == 401


def test_no_header_names_a_server_and_its_version(server: Server) -> None:
    for method, path in (("GET", "/"), ("GET", "/nowhere"), ("POST", "/v1/auth/login")):
        answer = server.ask(method, path)
        shown = answer.getheader("Server") or ""
        assert not any(character.isdigit() for character in shown), shown
        names = [name.lower() for name, _ in answer.getheaders()]
        assert names.count("server") == (0 if server.kind == "waitress" else 1)
        assert "x-powered-by" not in names


def test_no_header_moves_the_path_or_the_scheme(server: Server) -> None:
    connection = server.connect()
    forged = {"SCRIPT_NAME": "/healthz", "PATH_INFO": "/nowhere", "X-Forwarded-Proto": "https"}
    connection.request("GET", "/healthz", headers=forged | {"X-Forwarded-Ssl": "off"})
    answer = read(connection)
    connection.close()
    assert json.loads(answer.content) == {"status": "ok"}


@pytest.mark.parametrize("size", [32 * 1024, 1024 * 1024, 1536 * 1024])
def test_a_body_that_is_too_large_is_refused_however_it_is_sent(server: Server, size: int) -> None:
    for method, path in (("POST", "/v1/auth/login"), ("GET", "/healthz")):
        for body in (padded(LOGIN, size), b"".join(padded(LOGIN, size))):
            answer = server.ask(method, path, body)
            code = json.loads(answer.content)["code"]
            assert (answer.status, code) == (413, "payload_too_large")
    assert server.ask("GET", "/healthz").status == 200


def test_a_body_in_chunks_is_read(server: Server) -> None:
    answer = server.ask("POST", "/v1/auth/login", padded(LOGIN, 24 * 1024))
    assert (answer.status, json.loads(answer.content)["code"]) == (401, "invalid_credentials")


def talk(server: Server, sent: bytes, seconds: float = 30) -> bytes:
    """All that the server says until it closes the connection, to what is sent in one go.

    It may refuse before it has read everything, and then resets the connection.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                said += data
        return said


def statuses(said: bytes) -> list[int]:
    """The status of each answer in what a server says."""
    return [int(status) for status in re.findall(rb"HTTP/1\.\d (\d{3}) ", said)]


BROKEN = {
    "size": CHUNKED + b"zz\r\n",
    "a line feed alone after a size": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "an empty line before a size": CHUNKED + b"2\r\n{}\r\n\r\n0\r\n\r\n",
    "more data than the size says": CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "a control character in an extension": CHUNKED + b"2;a=\x01\r\n{}\r\n0\r\n\r\n",
    "two lengths": LOGIN_HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "a length of 5,000 digits": LOGIN_HEAD + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "a header that goes on in the next line": GET + b"A: b\r\n c\r\n\r\n",
    "a carriage return alone in a header": GET + b"A: b\r\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "a host that is no address": b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
@pytest.mark.parametrize("fault", BROKEN)
def test_framing_that_can_be_read_in_two_ways_is_refused(
    servers: Servers, kind: str, fault: str
) -> None:
    server = servers.serving(kind)
    said = talk(server, BROKEN[fault])
    assert statuses(said) == [400], said
    assert server.ask("GET", "/healthz").status == 200
    assert "Traceback" not in server.output.read_text("utf-8")


# Each is 2 MB at most; what reads it byte by byte, or tries each way to read it, takes longer than
# anybody waits.
ENDLESS = {
    "a chunk size": CHUNKED + b"1" * 2_000_000,
    "a chunk extension": CHUNKED + b"1;" + b"a" * 2_000_000,
    "trailers": CHUNKED + b"0\r\n" + b"a: b\r\n" * 300_000,
    "a trailer": CHUNKED + b"0\r\na: " + b"b" * 2_000_000,
    "empty lines between chunks": CHUNKED + b"\r\n" * 1_000_000,
    "empty lines before a request": b"\r\n" * 1_000_000,
    "a header line": GET + b"A: " + b"b" * 2_000_000,
    "header lines": GET + b"a: b\r\n" * 300_000,
    "blanks in a header": GET + b"A:" + b" " * 60_000 + b"\x01\r\n\r\n",
    "digits in a target": b"GET a://" + b"1" * 60_000 + b" x\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_end_is_refused_soon(servers: Servers, kind: str, what: str) -> None:
    server = servers.serving(kind)
    said = talk(server, ENDLESS[what], seconds=10)
    assert not said or statuses(said)[0] in {400, 414, 431}, said  # nothing if it was reset
    assert server.ask("GET", "/healthz").status == 200


def test_a_body_in_small_chunks_with_extensions_and_trailers_is_read(servers: Servers) -> None:
    pieces = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in LOGIN)
    for kind in ("waitress", "gunicorn"):
        said = talk(servers.serving(kind), CHUNKED + pieces + b"0\r\nA: b\r\nC: d\r\n\r\n")
        assert statuses(said) == [401], said


@pytest.mark.parametrize("sent", ["whole", "byte by byte"])
def test_chunks_are_read_however_they_arrive(sent: str) -> None:
    body = b"5\r\nhello\r\n6;x\r\n world\r\n0\r\nA: b\r\n\r\n"
    chunks = Chunks(OverflowableBuffer(100))
    step = len(body) if sent == "whole" else 1
    rest = body + b"GET /next"
    for at in range(0, len(body), step):
        assert not chunks.completed
        assert chunks.received(rest[at : at + step] if step == 1 else rest) == step
    assert (chunks.completed, chunks.error, chunks.getfile().read()) == (True, None, b"hello world")


def test_one_byte_a_chunk_ends_when_sizes_exceed_32_kib() -> None:
    chunks, used = Chunks(OverflowableBuffer(2**20)), 0
    while not chunks.error:
        used += chunks.received(b"1\r\nx\r\n" * 1000)
    assert used <= 50_000


def test_expecting_100_continue_without_a_body_is_answered(server: Server) -> None:
    expecting = b"Host: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    said = talk(server, b"GET /healthz HTTP/1.1\r\n" + expecting + b"\r\n")
    assert statuses(said)[-1] == 200, said
    said = talk(
        server, b"POST /v1/auth/logout HTTP/1.1\r\n" + expecting + b"Content-Length: 0\r\n\r\n"
    )
    assert statuses(said)[-1] == 401, said


def test_a_body_that_is_expected_and_too_large_is_not_asked_for(servers: Servers) -> None:
    head = LOGIN_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert statuses(talk(servers.serving("waitress"), head % 2**30)) == [413]
    said = talk(servers.serving("waitress"), head % len(LOGIN) + LOGIN)
    assert statuses(said) == [100, 401]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_begins_with_several_slashes_or_none_is_not_found(
    server: Server, method: str
) -> None:
    for target in ("//v1/auth/login", "/%2fv1/auth/login", "///v1/auth/login", "/%2F/v1/auth/me"):
        body = b"%s %s HTTP/1.1\r\n" % (method.encode(), target.encode())
        said = talk(server, body + b"Host: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert statuses(said) == [404], (target, said)
    said = talk(server, b"GET v1/auth/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert statuses(said) in ([400], [404]), said


HOSTS = {
    b"": 400,
    b"Host: evil.example/path\r\n": 400,
    b"Host: two words\r\n": 400,
    b"Host: a@b\r\n": 400,
    b"Host: [::1\r\n": 400,
    b"Host: x:port\r\n": 400,
    b"Host: \xe9\r\n": 400,
    b"Host: x\r\nHost: x\r\n": 400,
    b"Host: [::1]:8000\r\n": 200,
    b"Host: my_service:8000\r\n": 200,
    b"Host: 127.0.0.1\r\n": 200,
    b"Host:\r\n": 200,  # names none, as a client that knows none must
}


@pytest.mark.parametrize("header", HOSTS)
def test_a_request_that_names_no_valid_host_is_refused(server: Server, header: bytes) -> None:
    said = talk(server, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + header + b"\r\n")
    assert statuses(said) == [HOSTS[header]], said
    assert server.ask("GET", "/healthz").status == 200


def test_http_1_0_needs_no_host(server: Server) -> None:
    assert statuses(talk(server, b"GET /healthz HTTP/1.0\r\n\r\n")) == [200]


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
def test_a_body_that_breaks_off_changes_nothing(servers: Servers, kind: str) -> None:
    server = servers.serving(kind)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(LOGIN) + 500, LOGIN)
        )
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert not answer or b" 400 " in answer.partition(b"\r\n")[0], answer


# --- ending ---


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("waitress", signal.SIGTERM), ("waitress", signal.SIGHUP), ("gunicorn", signal.SIGTERM)],
)
def test_what_was_begun_is_finished_when_the_server_is_told_to_end(
    servers: Servers, kind: str, ending: signal.Signals
) -> None:
    server = servers.serving(kind)
    slow, other = server.connect(), server.connect()
    slow.request("POST", "/v1/auth/login", LOGIN, {"Content-Type": "application/json"})
    for _ in range(2):  # by then, the slow one has been read
        assert readiness(other) == 200

    server.process.send_signal(ending)
    if kind == "waitress":  # gunicorn closes idle connections: there is nobody left to tell
        assert until(lambda: (told := readiness(other)) != 200 and told) == 503
    answer = read(slow)
    assert (answer.status, json.loads(answer.content)["code"]) == (401, "invalid_credentials")
    assert server.process.wait(40) == 0
    slow.close()
    other.close()
    with pytest.raises(OSError):
        server.ask("GET", "/healthz")
    assert "Traceback" not in server.output.read_text("utf-8")


def readiness(connection: http.client.HTTPConnection) -> int:
    """What /readyz answers on a connection that is kept."""
    connection.request("GET", "/readyz")
    return read(connection).status


def test_sighup_replaces_the_workers_of_gunicorn_and_fails_no_request(servers: Servers) -> None:
    server = servers.serving("gunicorn")
    before = workers_of(server)
    server.process.send_signal(signal.SIGHUP)

    def is_replaced() -> bool:
        assert server.ask("GET", "/healthz").status == 200
        return not before & workers_of(server)

    assert until(is_replaced)


def workers_of(server: Server) -> set[str]:
    """The process ids of a gunicorn's workers."""
    master = server.process.pid
    return set(Path(f"/proc/{master}/task/{master}/children").read_text("ascii").split())


def test_sighup_does_not_end_a_server_that_runs_under_nohup(servers: Servers) -> None:
    with servers.start("waitress", ["nohup", *command_of("waitress")]) as server:
        server.wait_until_it_serves().process.send_signal(signal.SIGHUP)
        assert server.ask("GET", "/readyz").status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(40) == 0


# --- little that is writable ---


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
def test_a_server_serves_on_a_read_only_root_where_instance_alone_is_writable(
    tmp_path: Path, kind: str
) -> None:
    tree = copy_tree(tmp_path)
    instance = tree / "instance"
    instance.mkdir()
    instance.chmod(0o770)  # as the image has it
    migrate(f"sqlite:///{instance / 'backend.db'}")
    command = confined(instance, *command_of(kind))
    with Server(kind, tree, tmp_path, command, metrics_enabled=True, threads=4) as server:
        server.wait_until_it_serves()
        assert server.ask("GET", "/readyz").status == 200
        answer = server.ask("POST", "/v1/auth/login", padded(LOGIN, 1536 * 1024))
        assert (answer.status, json.loads(answer.content)["code"]) == (413, "payload_too_large")
        assert server.ask("GET", "/metrics").status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(40) == 0
        assert "Traceback" not in server.output.read_text("utf-8")


# --- listening ---


@pytest.mark.parametrize("kind", COMMANDS)
def test_both_names_of_all_addresses_listen_on_ipv4_and_ipv6(servers: Servers, kind: str) -> None:
    started = [servers.start(kind, host=host) for host in ("::", "*")]
    try:
        for server in started:
            server.wait_until_it_serves()
            with socket.create_connection(("::1", server.port), timeout=10) as connection:
                connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert statuses(connection.recv(4096)) == [200]
            logged = server.output.read_text("utf-8")
            assert logged.count("serving on") == 1, logged
    finally:
        for server in started:
            server.end()


def test_a_host_may_stand_in_brackets() -> None:
    assert addresses("[::1]") == addresses("::1") == ["::1"]
    assert addresses("[::]") == addresses("::") == addresses("*")


def test_a_server_says_that_it_serves_only_once_its_port_is_bound(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = [servers.start(kind, port=port) for kind in COMMANDS]
        started += [servers.start(kind, host="no.such.host.invalid") for kind in COMMANDS]
        try:
            for server in started:
                assert server.process.wait(30) != 0
                said = server.output.read_text("utf-8")
                assert "serving on" not in said
                assert "Traceback" not in said
                assert re.search("Cannot listen on|Connection in use", said), said
        finally:
            for server in started:
                server.end()


# --- refusing to start ---


def test_requests_that_sign_in_let_others_pass_but_for_every_fourth() -> None:
    waiting = Waiting({"/login"})
    for path in ["/login"] * 3 + ["/me"] * 5:
        waiting.append(SimpleNamespace(requests=[SimpleNamespace(path=path)]))
    order = [waiting.popleft().requests[0].path for _ in range(len(waiting))]
    assert order == ["/me"] * 3 + ["/login"] + ["/me"] * 2 + ["/login"] * 2


def test_the_process_refuses_to_start_when_that_would_be_unsafe(tree: Path) -> None:
    refused = run(tree, "python", "wsgi.py", secret_key=None, bcrypt_rounds=4)
    assert refused.returncode != 0
    first, *reasons = refused.stderr.splitlines()
    assert first == "Not started, for these reasons:"
    assert [reason.split()[0] for reason in reasons] == ["SECRET_KEY", "BCRYPT_ROUNDS"]
    assert refused.stdout == ""


def test_gunicorn_gives_up_when_starting_would_be_unsafe(servers: Servers) -> None:
    server = servers.start("gunicorn", secret_key=None)
    try:
        assert until(lambda: server.process.poll() is not None, seconds=8)
        assert server.process.returncode != 0
        assert "SECRET_KEY is not set" in server.output.read_text("utf-8")
    finally:
        server.end()


# --- development ---


def test_a_syntax_error_that_is_saved_does_not_end_the_development_server(
    servers: Servers,
) -> None:
    server = servers.serving("development")
    module = server.tree / "backend" / "__init__.py"
    text = module.read_text("utf-8")
    module.write_text(f"{text}def broken(:\n", "utf-8")
    said = "starts again when a file changes"
    assert until(lambda: said in server.output.read_text("utf-8"))
    assert "SyntaxError" in server.output.read_text("utf-8")
    assert server.process.poll() is None
    module.write_text(text, "utf-8")
    assert server.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_make_run_ends_with_its_server(servers: Servers, ending: signal.Signals) -> None:
    shutil.copy(ROOT / "Makefile", servers.tree)
    ours = [f"BIN={Path(sys.executable).parent}", "--old-file=.venv/runtime"]
    server = servers.start("development", ["make", "run", *ours])
    try:
        make = server.wait_until_it_serves().process
        if ending == signal.SIGTERM:
            make.send_signal(ending)
        else:  # a terminal sends these to everything that it has started
            os.killpg(make.pid, ending)
        make.wait(20)
        assert until(lambda: not answers(server))
        assert "Traceback" not in server.output.read_text("utf-8")
    finally:
        server.end()


def test_the_development_server_ends_when_what_restarts_it_is_killed(servers: Servers) -> None:
    with servers.start("development") as server:
        server.wait_until_it_serves().process.kill()
        assert until(lambda: not answers(server))


def answers(server: Server) -> bool:
    """True if somebody listens on the server's port, as long as that may be."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


def test_the_development_server_reloads_what_was_changed(servers: Servers) -> None:
    server = servers.serving("development")
    assert json.loads(server.ask("GET", "/").content)["version"] != "9.9.9"
    module = server.tree / "backend" / "__init__.py"
    text = module.read_text("utf-8")
    module.write_text(text.replace('__version__ = "', '__version__ = "9.9.9"  # "'), "utf-8")

    def version() -> str:
        try:
            return json.loads(server.ask("GET", "/").content)["version"]
        except (OSError, http.client.HTTPException):
            return ""  # it is starting again

    assert until(lambda: version() == "9.9.9")
    assert server.ask("GET", "/v1/docs").status == 200
