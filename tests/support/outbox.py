"""A server that is killed while it sends mail."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from flask import Flask

from .apps import client_of, service_of
from .people import add_user, sign_in
from .processes import Process, free_port
from .settings import process_environ

SECRET = "Zr8Qm2N4pX7vB9Ca5Sd3Gh6Yt1LwEk0J"
# `python wsgi.py`, ten minutes later.
LATER = """
import runpy
from datetime import timedelta
from backend.core import clock
clock.shift = timedelta(minutes=10)
runpy.run_path("wsgi.py", run_name="__main__")
"""


class Killed:
    """A server that sends to a mail port, and is killed. An administrator invites by it."""

    def __init__(self, app: Flask, tree: Path, folder: Path, mail_port: int) -> None:
        service_of(app).sender.close()  # the mail is for the servers to send
        add_user(client_of(app), "root", role="admin")
        self._headers = {
            **sign_in(client_of(app), "root").headers,
            "Content-Type": "application/json",
        }
        settings = service_of(app).settings
        self._settings = {
            "database_url": settings.database_url,
            "secret_key": settings.secret_key,
            "public_url": settings.public_url,
            "mail_url": f"smtp://127.0.0.1:{mail_port}",
        }
        self._tree, self._folder = tree, folder
        self.invited: set[str] = set()  # the addresses for which that was answered 201

    def start(self, *command: str) -> Process:
        """The server, which listens in the block and is killed at its end."""
        port = free_port()
        environ = process_environ(port=port, **self._settings)
        python = [Path(sys.executable), *command]
        return Process(python, port, self._folder / f"{port}.log", cwd=self._tree, env=environ)

    def invite(self, server: Process, numbers: range) -> None:
        """Invite a person for each number; all are answered 201."""
        with closing(server.connect()) as connection:
            for number in numbers:
                email = f"guest{number}@example.com"
                account = json.dumps({"username": f"guest{number}", "email": email})
                connection.request("POST", "/v1/auth/register", account, self._headers)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 201
                self.invited.add(email)
