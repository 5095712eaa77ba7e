"""An installation with few rights: a read-only root, an account that owns nothing."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.core.settings import Settings, SettingsError
from backend.db import migrations
from backend.db.database import open_database
from backend.doctor import service as doctor

from .support.people import PASSWORD
from .support.processes import confined, copy_tree
from .support.settings import make_settings, process_environ

FLASK = str(Path(sys.executable).parent / "flask")


@pytest.mark.slow
def test_every_step_of_an_installation_works_on_a_read_only_root(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    instance = tree / "instance"
    instance.mkdir()
    instance.chmod(0o770)  # as the image has it

    def flask(*arguments: str) -> str:
        done = subprocess.run(
            confined(instance, FLASK, "--app", "wsgi", *arguments),
            cwd=tree,
            env=process_environ(admin_password=PASSWORD, flask_skip_dotenv=1, secret_key=secret),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    secret, names = secrets.token_urlsafe(48), migrations.known()
    assert flask("db", "upgrade").splitlines() == [f"applied {name}" for name in names]
    assert flask("users", "bootstrap") == "First administrator: admin\n"
    assert flask("keys", "create", "admin", "x").startswith("bt_")
    assert " admin " in flask("users", "list")
    assert flask("audit", "verify")
    flask("db", "backup", str(instance / "kept"))
    assert flask("db", "verify") == "The database is sound.\n"
    assert flask("db", "downgrade") == f"undone {names[-1]}\n"
    assert flask("db", "upgrade") == f"applied {names[-1]}\n"
    assert flask("doctor").splitlines()[-1] == "0 warnings, nothing fatal."


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A folder of another account, into which `as_stranger` may not look, in one that all may."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "instance")
        folder.mkdir(mode=0o700)
        Path(name).chmod(0o755)
        if os.getuid() == 0:
            os.chown(folder, 10001, 10001)
        else:
            folder.chmod(0)
        yield folder
        folder.chmod(0o700)


def as_stranger(act: Callable[[], Any]) -> Any:
    """What `act` returns in a process of an account that is known nowhere, in the group 0."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(12345, 12345, 12345)
            result = act()
        except BaseException as error:
            result = repr(error)
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        result = json.load(told)
    os.wait()
    return result


def test_doctor_and_db_upgrade_name_a_folder_that_the_account_may_not_write(
    forbidden: Path,
) -> None:
    settings = make_settings(database_url=f"sqlite:///{forbidden}/test.db")
    database = open_database(settings)
    fatal, doubtful = as_stranger(lambda: doctor.findings(settings, database))
    assert fatal[0] == ("DATABASE_URL: the database does not answer: unable to open database file.")
    assert fatal[1].startswith(f"DATABASE_URL: {forbidden} is not writable by the user of this")
    assert doubtful == []
    refused = as_stranger(lambda: migrations.upgrade(database))
    assert "MigrationError" in refused
    assert f"{forbidden}/test.db cannot be created: Permission denied." in refused


def test_a_dotenv_that_the_account_may_not_read_is_told_in_a_sentence(forbidden: Path) -> None:
    dotenv = forbidden.parent / ".env"
    dotenv.touch(mode=0o000)

    def load() -> list[str]:
        with pytest.raises(SettingsError) as refusal:
            Settings.load({}, dotenv=dotenv)
        return refusal.value.problems

    assert as_stranger(load) == [f"{dotenv} cannot be read: Permission denied."]
