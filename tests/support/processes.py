"""Processes beside the test that listen on a port of this host: the service, proxies, Redis."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from backend.core.settings import ROOT

from .concurrency import until
from .settings import process_environ


def free_port() -> int:
    """Return a free port, below the range that outgoing connections use."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


def program(name: str) -> str:
    """Return the path of a program; TEST_NGINX names another nginx. Skip the test without it.

    With CI=true the test fails instead.
    """
    folders = [
        os.environ["PATH"],
        str(Path(sys.executable).parent),
        "/usr/sbin",
        *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
    ]
    found = os.environ.get(f"TEST_{name.upper()}")
    found = found or shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        assert os.environ.get("CI") != "true", f"{name} is not installed"
        pytest.skip(f"{name} is not installed")
    return found


_READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind / || exit 99
! touch /tmp/"$$" 2>/dev/null || exit 98
shift
exec "$@"
"""


def confined(instance: Path, *command: str) -> list[str]:
    """Return a command line that runs the command with only this folder writable.

    If root runs it, the folder belongs to group 0 and the command runs as an unknown account, as
    some platforms start containers.
    """
    line = ["unshare", "--mount", "sh", "-c", _READ_ONLY, "sh", str(instance)]
    if os.getuid():
        line.insert(1, "--map-root-user")
    else:
        for path in (instance, *instance.iterdir()):
            os.chown(path, 10001 if path == instance else 12345, 0)
        may_read = "+dac_read_search"  # Python may be in the home directory of root
        line += ["setpriv", "--reuid=12345", "--regid=0", "--clear-groups"]
        line += [f"--inh-caps={may_read}", f"--ambient-caps={may_read}"]
    return [*line, *command]


class Process:
    """A process in its own group, with all its output in a file.

    As a context manager, it listens on entry and is ended on exit.
    """

    def __init__(self, command: Sequence[str | Path], port: int, output: Path, **how: Any) -> None:
        self.port, self.output = port, output
        self._command, self._how = command, how
        self.start()

    def start(self) -> None:
        """Start it; also again after its end, on the same port."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._how,
            )

    def wait_until_it_listens(self) -> Self:
        """Return this process, as soon as it accepts connections."""
        until(self._listens)
        return self

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.output.read_text("utf-8")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def connect(self, **how: Any) -> http.client.HTTPConnection:
        """Return a connection that stays open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, **how)

    def end(self) -> None:
        """Kill all that is left of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def __enter__(self) -> Self:
        try:
            return self.wait_until_it_listens()
        except BaseException:
            self.end()
            raise

    def __exit__(self, *exc: object) -> None:
        self.end()


def nginx(text: str, folder: Path) -> list[str]:
    """Return the command that runs nginx with this configuration, writing only to the folder."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    conf = folder / "nginx.conf"
    conf.write_text(text.replace("http {", f"http {{ access_log off; {paths}", 1), "utf-8")
    own = f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;"
    return [program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(conf), "-g", own]


def copy_tree(folder: Path) -> Path:
    """Copy all that runs into the folder, and return it."""
    for name in ("backend", "config", "migrations"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "wsgi.py", folder)
    return folder


def run(
    tree: Path,
    program: str,
    *arguments: str,
    stdin: str = "",
    seconds: float = 60,
    **values: object,
) -> subprocess.CompletedProcess[str]:
    """Run `python`, `flask` or `gunicorn` in the tree to completion, in production."""
    return subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=tree,
        env=process_environ(**values),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
