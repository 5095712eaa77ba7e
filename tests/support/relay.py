"""A TCP relay that can be frozen, slowed and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Relay:
    """A TCP relay in front of a server, which can be frozen, slowed and cut."""

    def __init__(self, host: str, port: int, own_port: int = 0) -> None:
        self._target = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._ends: list[socket.socket] = []
        self._is_cut = False
        self._lock = threading.Lock()  # no connection is made while all are being ended
        self.delay = 0.0  # seconds before each piece is passed on
        self._listener = socket.create_server(("127.0.0.1", own_port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Accept data, and pass nothing on."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what has arrived meanwhile, and all that follows."""
        self._flowing.set()

    def cut(self) -> None:
        """End all connections, and each new one immediately, until `mend` is called."""
        with self._lock:
            self._is_cut = True
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._ends.clear()

    def mend(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    def close(self) -> None:
        """Accept no further connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    if self._is_cut:
                        client.close()
                        continue
                    server = socket.create_connection(self._target)
                    self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                time.sleep(self.delay)
                self._flowing.wait()
                sink.sendall(data)
