"""Servers of the service: processes of all three kinds, and one in this process."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waitress.server import create_server

from backend.app import create_app

from .apps import client_of
from .concurrency import until
from .databases import migrate
from .people import add_user
from .processes import Process, free_port
from .settings import make_settings, process_environ

COMMANDS = {
    "waitress": ["python", "wsgi.py"],
    "gunicorn": ["gunicorn", "-c", "config/gunicorn.conf.py", "wsgi:app"],
    "development": ["python", "wsgi.py"],
}
# A hash of this cost takes long enough for a signal to come in between.
SETTINGS = {
    "waitress": {"bcrypt_rounds": 13},
    "gunicorn": {"bcrypt_rounds": 13, "workers": 2, "threads": 4},
    "development": {"bcrypt_rounds": 4, "environment": "development", "secret_key": "k" * 40},
}
LOGIN_HEAD = (
    b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n"
)
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
CHUNKED = LOGIN_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def command_of(kind: str) -> list[str]:
    """What starts a server of this kind."""
    program, *arguments = COMMANDS[kind]
    return [str(Path(sys.executable).parent / program), *arguments]


class Server(Process):
    """A server of the service."""

    def __init__(
        self,
        kind: str,
        tree: Path,
        folder: Path,
        command: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        self.kind, self.tree = kind, tree
        port = settings.pop("port", None) or free_port()
        super().__init__(
            command or command_of(kind),
            port,
            folder / f"{kind}-{secrets.token_hex(4)}.log",  # two of a kind may run at a time
            cwd=tree,
            env=process_environ(port=port, **{**SETTINGS[kind], **settings}),
        )

    def wait_until_it_serves(self) -> Server:
        """This server, as soon as it answers."""
        until(self._serves)
        return self

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.output.read_text("utf-8")
        try:
            return self.ask("GET", "/healthz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        """The answer to one request, read to its end. An iterable body is sent in chunks."""
        connection = self.connect()
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            # It may be refused before all of the body is sent; then the answer is there.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers)
            return read(connection)
        finally:
            connection.close()


class Answer(http.client.HTTPResponse):
    """An answer whose body has been read, in `content`."""

    content: bytes


def read(connection: http.client.HTTPConnection) -> Answer:
    """The next answer on the connection, with its body."""
    connection.response_class = Answer
    answer = connection.getresponse()
    assert isinstance(answer, Answer)
    answer.content = answer.read()
    return answer


@contextmanager
def serving_an_admin(folder: Path, port: int = 0, **settings: object) -> Iterator[int]:
    """Serve an app with an administrator called admin, with PASSWORD; yield the port."""
    url = f"sqlite:///{folder}/served.db"
    migrate(url)
    app = create_app(make_settings(database_url=url, **settings))
    add_user(client_of(app), "admin", role="admin")
    server = create_server(app, host="127.0.0.1", port=port, threads=2)
    threading.Thread(target=server.run, daemon=True).start()
    yield server.effective_port
    server.trigger.pull_trigger(server.close)
