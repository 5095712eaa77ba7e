"""`flask new` and `flask rename`, for projects that start from a checkout of this tree.

Skip it on a first reading.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import subprocess
from pathlib import Path

import click
from flask.cli import with_appcontext

from .. import services
from ..core.paths import IS_CHECKOUT, ROOT
from ..db import migrations
from .common import fail, inside, say

PAGE = ROOT / "docs" / "extend.md"
PACKAGE = Path(__file__).parents[1]
HISTORY = "CHANGELOG.md"  # keeps the old name


@click.command()
@click.argument("subject")
@click.option("--singular", help="If it is irregular: `new people --singular person`.")
@with_appcontext
@inside
def new(subject: str, singular: str | None) -> None:
    """Write the files of a new subject, its migration and its test. SUBJECT is a plural.

    The files are those of the notes in docs/extend.md, renamed to the subject.
    """
    singular = singular or _singular_of(subject)
    _require_names(subject, singular)
    _require_free(f"{PACKAGE.name}.{subject}")
    if singular == subject:
        fail(f"{subject} is not a plural: give a plural, or use --singular.")
    files = {_named(path, subject, singular): text for path, text in _snippets().items()}
    if taken := [path for path in files if (ROOT / path).exists()]:
        fail(f"{taken[0]} already exists.")
    for path, text in files.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(_named(text, subject, singular), "utf-8")
        say(f"written {path}")
    importlib.invalidate_caches()
    written = migrations.revision(services.current().database, f"Add {subject}.")
    say(f"written {written and written.relative_to(ROOT)}")
    say(f"Now add {subject}.SUBJECT to SUBJECTS in {PACKAGE.name}/app.py, read the migration, and")
    say("run `flask --app wsgi db upgrade`, `make format`, `make test` and `make lint`.")


def _snippets() -> dict[str, str]:
    """Return the files of the notes on the page: {path: text}."""
    page = PAGE.read_text("utf-8").partition("## Add a larger resource")[0]
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return dict(blocks)


def _singular_of(plural: str) -> str:
    """Return the singular of a regular English plural, and other words unchanged."""
    ends = {"ies": "y", "sses": "ss", "xes": "x", "ches": "ch", "shes": "sh", "s": ""}
    end = next((end for end in ends if plural.endswith(end)), "")
    return plural.removesuffix(end) + ends.get(end, "")


def _named(text: str, plural: str, singular: str) -> str:
    """Return a text about notes as one about the subject."""
    if singular[0] in "aeiou":
        text = re.sub(r"\b([Aa]) note\b", r"\1n note", text)
    text = text.replace("/v1/notes", f"/v1/{plural.replace('_', '-')}")
    text = text.replace('="/notes"', f'="/{plural.replace("_", "-")}"')
    words = {
        "Notes": plural.replace("_", " ").capitalize(),
        "notes": plural,
        "Note": "".join(part.capitalize() for part in singular.split("_")),
        "note": singular,
    }
    for word, name in words.items():
        text = text.replace(word, name)
    prose = re.compile(r'""".*?"""|about\(".*?"', re.DOTALL)
    return prose.sub(lambda found: found[0].replace(singular, singular.replace("_", " ")), text)


@click.command()
@click.argument("name")
def rename(name: str) -> None:
    """Rename the package to NAME everywhere in the project.

    Changes the files that git tracks. Public names stay: tables, settings, metrics, JSON, URLs, the
    database and the container image.
    """
    _require_names(name)
    _require_free(name)
    if _git("status", "--porcelain"):
        fail("commit your changes first, so that `git reset --hard` can undo this.")
    old = PACKAGE.name
    mentions, quoted = _mentions(old), _quoted(old)
    for path in map(ROOT.joinpath, _git("ls-files").splitlines()):
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        renamed = text if path.name == HISTORY else mentions.sub(name, text)
        if path.suffix in {".py", ".toml", ".md"}:
            renamed = quoted.sub(name, renamed)
        if renamed != text:
            path.write_text(renamed, "utf-8")
    _git("mv", old, name)
    say(f"{old} is now {name}.")


def _mentions(old: str) -> re.Pattern[str]:
    """Match the package's name in imports, module names, paths and files that list it."""
    modules = "|".join({path.stem for path in PACKAGE.iterdir()} - {"db"} | {"identity"})
    return re.compile(
        rf"(?<=\bfrom ){old}\b|(?<=\bimport ){old}\b"
        rf"|\b{old}(?=\.(?:{modules}|__\w+)\b)"
        rf"|\b{old}(?=\.db(?:\.\w| import)|\.{{)"  # backend.db may also be a file
        rf"|(?<![\w/.-]){old}(?=/)"
        rf"|(?<=^COPY ){old}(?= )|(?<=^COPY {old} ){old}$|(?<=^!){old}$"
        rf"|\b{old}(?= \(pyproject\.toml\))",
        re.MULTILINE,
    )


def _quoted(old: str) -> re.Pattern[str]:
    """Match the package's name as a whole text, except as a value that clients see."""
    others = r"""(?<!: ")(?<!== ")(?<!_name", ")(?<!path\[")"""
    return re.compile(rf"""{others}(?<=["']){old}(?=\.?["'])""")


def _require_names(*names: str) -> None:
    """End the command unless it runs in a checkout and the names can be those of modules."""
    if not IS_CHECKOUT:
        fail("this works only in a checkout, not in an installed wheel.")
    for name in names:
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
            fail(f"{name!r} cannot be the name: use lower-case letters, digits and _.")


def _require_free(module: str) -> None:
    """End the command if there is a module of this name."""
    if importlib.util.find_spec(module):
        fail(f"{module} is taken: there is a module of that name.")


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        fail(f"git: {done.stderr.strip()}")
    return done.stdout
