"""The commands of `flask --app wsgi`, run in this process."""

from __future__ import annotations

from typing import Protocol

from click.testing import Result
from flask import Flask


class Flasks(Protocol):
    """A command of `flask`: its arguments, and what it reads from standard input."""

    def __call__(self, *arguments: str, stdin: str = "") -> Result: ...


def flask_of(app: Flask) -> Flasks:
    """The `flask` command for the app, in this process."""

    def invoke(*arguments: str, stdin: str = "") -> Result:
        with app.app_context():
            return app.test_cli_runner().invoke(args=list(arguments), input=stdin)

    return invoke


def assert_done(result: Result, *lines: str) -> None:
    """The command succeeded and printed these lines."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert result.stdout.splitlines() == list(lines)


def assert_refused(result: Result, *sentences: str) -> None:
    """The command failed with exactly these sentences on stderr, and printed nothing."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"Error: {sentence}" for sentence in sentences]
    assert result.stdout == ""


def assert_misused(result: Result, words: str) -> None:
    """The command was called in a way that it does not know; it tells its usage."""
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert words in result.stderr
    assert result.stdout == ""
