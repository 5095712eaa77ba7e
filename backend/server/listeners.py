"""Code that all servers share: listening, signals, and stopping without resetting any client.

Skip it on a first reading.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask

from ..core.paths import ROOT
from ..core.settings import Settings

if TYPE_CHECKING:  # gunicorn's configuration imports this before it chooses a folder for metrics
    from ..services import Services

log = logging.getLogger(__name__)


def addresses(host: str) -> list[str]:
    """Return a host's numeric addresses; `*` and `::` mean all, both IPv6 and IPv4.

    Raises OSError if there are none.
    """
    host = host.strip("[]")
    if host in {"*", "::"}:
        return ["::"] if socket.has_dualstack_ipv6() else ["0.0.0.0"]  # noqa: S104
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def listen(settings: Settings) -> list[socket.socket]:
    """Bind HOST and PORT; return the sockets. Raises OSError if that fails."""
    return [
        socket.create_server(
            (address, settings.port),
            family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            backlog=1024,
            dualstack_ipv6=address == "::",
        )
        for address in addresses(settings.host)
    ]


def announce(settings: Settings) -> None:
    """Log the address at which the service listens."""
    docs = f", documentation at {settings.public_url}/v1/docs" if settings.docs_enabled else ""
    log.info("serving on %s port %s%s", settings.host, settings.port, docs)


def on_end(act: Callable[[], object]) -> None:
    """Call `act` once when the process is asked to end: by SIGTERM, or a closed terminal."""
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    ending = [signal.SIGTERM]
    if hangup and signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup ignores it
        ending.append(hangup)

    def end(*_: object) -> None:
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
        act()

    for number in ending:
        signal.signal(number, end)


def use_temporary_folder() -> None:
    """Put temporary files into instance/ if the usual folders are not writable."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        folder = ROOT / "instance" / "tmp"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.tempdir = str(folder)


def begin(app: Flask) -> None:
    """Start the background work once the server listens."""
    use_temporary_folder()
    service: Services = app.extensions["backend"]
    service.sender.start()  # mail left over from before a crash
    announce(service.settings)


def finish(app: Flask) -> None:
    """Do the remaining background work before the process ends."""
    service: Services = app.extensions["backend"]
    for each in (service.tasks, service.shuffled_tasks, service.sender, service.periodic_tasks):
        each.close()


def stop_listening(listener: socket.socket, accept: Callable[[], object]) -> None:
    """Close the listener once no client is waiting to be accepted.

    A client that connects between the last check and the close is reset, and a proxy cannot repeat
    a write. Calls through PyDLL do not let other threads run in between, as Python's own would for
    milliseconds under load.
    """
    if os.name != "posix":
        accept()
        listener.close()
        return
    libc, descriptor = ctypes.PyDLL(None), listener.fileno()
    waiting = ctypes.create_string_buffer(struct.pack("ihh", descriptor, select.POLLIN, 0))
    while libc.poll(waiting, ctypes.c_ulong(1), 0) > 0:
        accept()
    libc.close(descriptor)
    listener.detach()


def has_input(connection: socket.socket) -> bool:
    """Return whether there is unread input, including the end of the stream."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
