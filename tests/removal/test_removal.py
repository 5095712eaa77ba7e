"""What is left without a subject still starts, migrates, has sound types, and serves.

Removing one takes what docs/extend.md says: its folder, its two lines in app.py, the migrations of
its tables, and its tests.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from backend import app
from backend.core.settings import ROOT
from backend.db import migrations

from ..support.processes import copy_tree, run

CORE = {"mail", "notices", "audit", "users", "throttling", "api_keys", "auth"}
REMOVABLE = [each.name for each in app.SUBJECTS if each.name not in CORE]

SMOKE = """
from backend.app import SUBJECTS, create_app

client = create_app().test_client()
assert client.get("/readyz").status_code == 200
body = {"username": "admin", "password": "correct horse battery staple"}
tokens = client.post("/v1/auth/login", json=body).json
bearer = {"Authorization": "Bearer " + tokens["access_token"]}
key = client.post("/v1/api-keys", headers=bearer, json={"name": "ci", "scopes": ["users:read"]})
by_key = {"X-API-Key": key.json["key"]}
assert client.get("/v1/auth/me", headers=by_key).json["username"] == "admin"
assert client.get("/v1/users", headers=by_key).json["items"][0]["username"] == "admin"
refused = client.get("/v1/audit-events", headers=by_key)
assert (refused.status_code, refused.json["code"]) == (403, "insufficient_scope")
events = client.get("/v1/audit-events", headers=bearer).json["items"]
actions = ["access.denied", "key.create", "login", "user.create"]
assert [each["action"] for each in events] == actions
assert client.get("/v1/openapi.json").status_code == 200
client.application.extensions["backend"].periodic_tasks.run()
print(*(each.name for each in SUBJECTS))
"""


def without(name: str, folder: Path) -> Path:
    """Copy the tree into the folder, and remove the subject from the copy."""
    tree = copy_tree(folder)
    for other in ("pyproject.toml", "benchmarks"):
        copy = shutil.copytree if (ROOT / other).is_dir() else shutil.copy2
        copy(ROOT / other, tree / other)
    tables = {
        model._meta.table_name
        for model in migrations.models()
        if model.__module__ == f"backend.{name}.models"
    }
    for path in (tree / "migrations").glob("[0-9]*.py"):
        made = set(re.findall(r'table_name = "(\w+)"', path.read_text("utf-8")))
        if made and made <= tables:
            path.unlink()
    shutil.rmtree(tree / "backend" / name)
    lines = (tree / "backend" / "app.py").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.strip() not in (f"{name},", f"{name}.SUBJECT,")]
    assert len(kept) == len(lines) - 2
    (tree / "backend" / "app.py").write_text("".join(kept), "utf-8")
    return tree


def test_the_core_is_part_of_the_service() -> None:
    assert {each.name for each in app.SUBJECTS} >= CORE
    assert len(REMOVABLE) > 5


@pytest.mark.parametrize("name", REMOVABLE)
def test_the_service_works_without(name: str, tmp_path: Path) -> None:
    tree = without(name, tmp_path / "tree")

    def done(program: str, *arguments: str) -> str:
        settings = {
            "environment": "testing",
            "database_url": f"sqlite:///{tmp_path}/app.db",
            "admin_password": "correct horse battery staple",
        }
        result = run(tree, program, *arguments, seconds=300, **settings)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    flask = ["--app", "wsgi"]
    if name == "audit_chain":  # a migration made its table together with others
        done("flask", *flask, "db", "revision", "-m", "without the chain")
    assert "applied 001_users" in done("flask", *flask, "db", "upgrade")
    done("flask", *flask, "db", "check")
    done("flask", *flask, "users", "bootstrap")
    left = [each.name for each in app.SUBJECTS if each.name != name]
    assert done("python", "-c", SMOKE).split() == left
    done("flask", *flask, "prune")
    if name != "doctor":
        assert "nothing fatal" in done("flask", *flask, "doctor")
    # The modules that were not touched have been checked in the tree itself.
    cache = tmp_path / "mypy"
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", cache)
    done("python", "-m", "mypy", "--cache-dir", str(cache), "--python-executable", sys.executable)
