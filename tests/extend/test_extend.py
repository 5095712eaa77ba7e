"""docs/extend.md followed literally in a copy of the tree, which then passes its whole suite."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from backend.core.settings import ROOT

BIN = Path(sys.executable).parent
# A line of the page that names the file of a snippet, and where in the file it belongs.
PLACE = re.compile(r"(?:#|<!--) (\S+?)(?:, (below|at the end of) (\w+))?(?: -->)?\n")

SETTINGS = ("docs/settings.md", ".env.example")
OF_TICKETS = re.compile(r"    tickets(\.SUBJECT)?,$|\W*close_tickets_after_days\b", re.IGNORECASE)


class Block(NamedTuple):
    """A code block of the page, under its `##` heading."""

    heading: str
    language: str
    text: str


def blocks_of(page: Path) -> Iterator[Block]:
    """The code blocks of a page, in order."""
    for section in re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", section, re.M | re.S):
            yield Block(heading, language, text)


class Project:
    """The copy: a git repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(lambda name: (ROOT / name).is_file(), names.splitlines()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(BIN.parent)
        self.run(
            "git init; git config user.name Alice; git config user.email alice@example.com;"
            " echo .venv >> .git/info/exclude; git add --all; git commit -m Start"
        )

    def run(self, script: str, **environ: str) -> str:
        """Run a script as the reader of the page would; return what it prints."""
        script = script.replace("make ", "make -o .venv/development ")
        kept = {"PATH", "TEST_POSTGRES_URL", "TEST_REDIS_URL"} & os.environ.keys()
        environ = {name: os.environ[name] for name in kept} | environ
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={"LC_ALL": "C.UTF-8", "FLASK_SKIP_DOTENV": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def follow(self, first: str, last: str) -> None:
        """Do what the page says from one heading to another: write snippets, run commands."""
        blocks = list(blocks_of(self.folder / "docs" / "extend.md"))
        headings = list(dict.fromkeys(block.heading for block in blocks))
        wanted = headings[headings.index(first) : headings.index(last) + 1]
        for block in blocks:
            if block.heading in wanted and block.language:
                self.write(block.text)
            elif block.heading in wanted:
                self.run(block.text, ENVIRONMENT="development")

    def write(self, snippet: str) -> None:
        """Write a snippet to its place."""
        place = PLACE.match(snippet)
        assert place, snippet
        name, where, anchor = place.groups()
        path, code = self.folder / name, snippet[place.end() :]
        path.parent.mkdir(exist_ok=True)
        if not where:
            path.write_text(code, "utf-8")
            return
        lines = path.read_text("utf-8").splitlines(keepends=True)
        line = line_of(anchor, lines) if where == "below" else end_of(anchor, "".join(lines))
        path.write_text("".join([*lines[:line], code, *lines[line:]]), "utf-8")


def line_of(word: str, lines: list[str]) -> int:
    """The number of the first line that begins with the word, apart from punctuation."""
    return next(n for n, line in enumerate(lines, 1) if re.match(rf"\W*{word}\b", line))


def end_of(name: str, code: str) -> int:
    """The number of the last line of a class, or of the last item of a list."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node.end_lineno or 0
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return (node.end_lineno or 0) - 1
    raise AssertionError(f"{name} is not there")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that other accounts may enter, as tests of the project expect; pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def project(folder: Path) -> Project:
    """A copy of the tree that has become a project of its own."""
    project = Project(folder)
    project.follow("Generate the files", "Generate the files")
    generated = {path: path.read_text("utf-8") for path in project.folder.rglob("*note*/*.py")}
    assert len(generated) == 5
    project.follow("Define the table", "Test it through HTTP")
    for path, text in generated.items():
        assert path.read_text("utf-8") == text, path
    said = project.run(".venv/bin/flask --app wsgi new invoices", ENVIRONMENT="development")
    assert "app.py" in said
    project.write("# backend/app.py, below forward_auth\n    invoices,\n")
    project.write("# backend/app.py, at the end of SUBJECTS\n    invoices.SUBJECT,\n")
    project.follow("Add a larger resource", "Rename the project")
    return project


def test_the_project_passes_its_whole_suite_and_lint(project: Project) -> None:
    assert not (project.folder / "backend").exists()
    project.run(".venv/bin/flask --app wsgi db check", ENVIRONMENT="development")
    project.run("make lint")
    pytest = ".venv/bin/pytest -n auto -p no:cacheprovider"
    assert " passed" in project.run(pytest, TEST_POSTGRES_URL="")
    # What an added table touches, on PostgreSQL too; `make test` runs the rest there.
    project.run(f"{pytest} tests/test_{{notes,tickets,invoices,core_migrations,users_admin}}.py")


def test_a_subject_can_be_removed(project: Project) -> None:
    for name in ("acme_accounts/app.py", "acme_accounts/core/settings.py", *SETTINGS):
        path = project.folder / name
        lines = path.read_text("utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not OF_TICKETS.match(line)), "utf-8")
    project.follow("Remove a subject", "Remove a subject")
    project.run(".venv/bin/flask --app wsgi db check", ENVIRONMENT="development")
    project.run("make lint; .venv/bin/pytest -n auto tests/test_tree.py tests/test_notes.py")
