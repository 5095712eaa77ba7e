"""`flask new` and `flask rename`: what they refuse. `make extend` tests what they write."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from backend.cli import template

from .support.commands import Flasks, assert_refused, flask_of
from .support.processes import copy_tree, run


@pytest.fixture
def flask(make_bare_app: Callable[..., Flask]) -> Flasks:
    """A function that runs a command without a database."""
    return flask_of(make_bare_app())


@pytest.mark.parametrize("name", ["Notes", "1st", "line-items", "class", "../notes", ""])
def test_a_name_that_no_module_can_have_is_refused(flask: Flasks, name: str) -> None:
    sentence = f"{name!r} cannot be the name: use lower-case letters, digits and _."
    assert_refused(flask("rename", name), sentence)
    assert_refused(flask("new", name, "--singular", "note"), sentence)


def test_a_name_that_is_taken_is_refused(flask: Flasks) -> None:
    for name in ("backend", "tests", "json", "flask"):
        assert_refused(flask("rename", name), f"{name} is taken: there is a module of that name.")
    for name in ("users", "services"):
        taken = f"backend.{name} is taken: there is a module of that name."
        assert_refused(flask("new", name), taken)


def test_a_subject_needs_a_plural(flask: Flasks) -> None:
    refused = "people is not a plural: give a plural, or use --singular."
    assert_refused(flask("new", "people"), refused)


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        *(("notes", "note"), ("entries", "entry"), ("boxes", "box"), ("addresses", "address")),
        *(("branches", "branch"), ("houses", "house"), ("line_items", "line_item")),
    ],
)
def test_the_singular_of_a_regular_plural_is_known(plural: str, singular: str) -> None:
    assert template._singular_of(plural) == singular


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("# backend/notes/models.py", "# backend/order_items/models.py"),
        ('"""/v1/notes: a note."""', '"""/v1/order-items: an order item."""'),
        ('url_prefix="/notes"', 'url_prefix="/order-items"'),
        ('description="Notes"', 'description="Order items"'),
        ('note: Note = "notes:write"', 'order_item: OrderItem = "order_items:write"'),
        ('about("The note\'s id.")', 'about("The order item\'s id.")'),
    ],
)
def test_a_name_of_two_words_is_spelled_as_each_place_needs(text: str, named: str) -> None:
    assert template._named(text, "order_items", "order_item") == named


@pytest.mark.slow
def test_a_tree_with_changes_is_not_renamed(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    assert "not a git repository" in run(tree, "flask", "--app", "wsgi", "rename", "acme").stderr
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    done = run(tree, "flask", "--app", "wsgi", "rename", "acme")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: commit your changes first, so that `git reset --hard` can undo this.\n"
    )
    assert (tree / "backend").is_dir()
