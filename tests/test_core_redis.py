"""REDIS_URL: by TCP, TLS, a Unix socket and sentinels, and what it refuses."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from backend.core import redis_url
from backend.core.settings import SettingsError
from backend.core.settings_parsers import Limit

from .support.concurrency import until
from .support.processes import Process, free_port, program
from .support.rate_limits import hits, limiter_on
from .support.settings import make_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """A function that starts a Redis of our own, with these options."""
    with ExitStack() as running:

        def start(*options: str, port: int = 0) -> Process:
            port = port or free_port()
            command = [program("redis-server"), *options, "--port", str(port)]
            command += ["--bind", "127.0.0.1", "--dir", str(tmp_path)]
            return running.enter_context(Process(command, port, tmp_path / f"{port}.log"))

        yield start


def is_shared(url: str) -> bool:
    """True if two processes count together under the URL."""
    name, limit = uuid.uuid4().hex, Limit(4, 3600)
    return [hits(limiter_on(url), name, limit, 3) for _ in range(2)] == [3, 1]


def test_redis_is_reached_by_tcp_under_both_names(start: Callable[..., Process]) -> None:
    port = start("--save", "", "--requirepass", "p/@ss").port
    for scheme in ("redis", "valkey"):
        assert is_shared(f"{scheme}://:p%2F%40ss@127.0.0.1:{port}/1")
        assert not is_shared(f"{scheme}://:wrong@127.0.0.1:{port}/1")


def test_redis_is_reached_by_a_unix_socket(start: Callable[..., Process], tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    port = start("--save", "", "--requirepass", "p/@ss", "--unixsocket", str(path)).port
    assert is_shared(f"unix://default:p%2F%40ss@{path}?db=2")
    assert not is_shared(f"unix://{path}")
    with Redis(port=port, password="p/@ss", db=2) as redis:
        assert redis.dbsize() == 1


def test_a_private_certificate_authority_is_trusted_by_ssl_cert_file(
    start: Callable[..., Process], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate))
    start("--save", "", "--tls-port", str(tls), *files, "--tls-auth-clients", "no")
    for scheme in ("rediss", "valkeys"):
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        assert not is_shared(f"{scheme}://127.0.0.1:{tls}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert is_shared(f"{scheme}://127.0.0.1:{tls}")


def test_sentinels_lead_to_the_master_and_after_a_failover_to_the_next(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    master = start("--save", "")
    replica = start("--save", "", "--replicaof", f"127.0.0.1 {master.port}")
    with Redis(port=replica.port) as redis:
        until(lambda: redis.info("replication")["master_link_status"] == "up")
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"sentinel monitor limits 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds limits 300\nsentinel failover-timeout limits 1000\n"
    )
    sentinel = start(str(conf), "--sentinel")
    with Redis(port=sentinel.port) as redis:
        until(lambda: redis.sentinel_slaves("limits"))
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/limits/1"
    assert is_shared(url)  # although the first of them does not answer
    assert not is_shared(url.replace("limits", "others"))
    master.end()
    until(lambda: is_shared(url))
    with Redis(port=replica.port, db=1) as redis:
        assert redis.dbsize() > 0


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis+sentinel://a/x", ([("a", 26379)], "x", 0)),
        (
            "redis+sentinel://a:1,[::1]:2,c/x.y-z/3",
            ([("a", 1), ("::1", 2), ("c", 26379)], "x.y-z", 3),
        ),
        ("redis+sentinel://u:p%2C@a,b:2/x/", ([("a", 26379), ("b", 2)], "x", 0)),
    ],
)
def test_sentinels_are_read_with_their_default_port(url: str, found: tuple[object, ...]) -> None:
    assert redis_url.sentinels(redis_url.urlsplit(url)) == found


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel:///limits",
        "redis+sentinel://a,/limits",
        "redis+sentinel://a:x/limits",
        "redis+sentinel://a:65536/limits",
        "redis+sentinel://a/limits/x",
        "redis+sentinel://a/limits?socket_timeout=1",
        "unix://",
        "unix://host/path",
        "unix:///path?db=x",
        "unix:///path?password=x",
        "valkey://localhost/limits",
        "valkeyx://localhost",
        "redis://",
    ],
)
def test_what_names_no_redis_is_refused_with_the_forms(url: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        make_settings(redis_url=url)
    [sentence] = refusal.value.problems
    assert sentence.startswith("REDIS_URL is invalid; expected: redis(s)://")
    assert "redis+sentinel://" in sentence
