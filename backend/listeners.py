"""How a server comes to its end without resetting anybody who has connected."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Callable


def stop_listening(listener: socket.socket, accept: Callable[[], object]) -> None:
    """Close the listener when nobody waits to be accepted.

    Who connects between the last look and the close is reset, and a proxy cannot send a write
    again. Python's own calls give the interpreter to other threads, which makes milliseconds of
    that moment under load; those of PyDLL do not.
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
    """True if something has come that was not read yet, be it the end."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
