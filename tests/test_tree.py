"""The tree against itself: lists that must agree, and imports that go one way."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import backend
from backend import app
from backend.core.settings import ROOT, Settings
from backend.db import migrations
from backend.web import problems

from .support.processes import copy_tree, run

PACKAGE = ROOT / "backend"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each folder, or file, may import those to its left.
BELOW = ["core", "db", "crypto", "background", "subject", "mail", "services", "web", "cli"]
SUBJECTS = [each.name for each in app.SUBJECTS if each.name not in BELOW]
ORDER = [*BELOW, *SUBJECTS, "server", "app", "wsgi"]

HTTP = {"flask", "flask_smorest", "marshmallow", "webargs", "werkzeug", "apispec"}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


def parts_of(path: Path) -> tuple[str, ...]:
    """Where a module of ours stands: ("users", "routes"), ("app",), () for the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def speaks_http(path: Path) -> bool:
    """True for a module that imports a library for HTTP, or what all routes or commands share."""
    inside = {target[0] for target, _ in imports_of(path) if target}
    return bool(outside_imports_of(path) & HTTP or inside & {"web", "cli"})


def imports_of(path: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """(module, how it is written) for all that a module of ours imports of ours, at any place."""
    package = PACKAGE.relative_to(ROOT).parts + path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + tuple((node.module or "").split("."))
        base = tuple(part for part in base if part)
        for name in node.names:
            target = base
            if is_module((*base, name.name)):
                target = (*base, name.name)
            yield target[1:], ast.unparse(node)


def is_module(parts: tuple[str, ...]) -> bool:
    """True if these parts name a module or package of ours."""
    path = ROOT.joinpath(*parts)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def outside_imports_of(path: Path) -> set[str]:
    """The top-level names of all that a module imports absolutely, at any place."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


# --- imports ---


def faults_of(module: tuple[str, ...], target: tuple[str, ...]) -> bool:
    """True if the module must not import the target."""
    return ORDER.index(target[0]) > ORDER.index(module[0])


def test_imports_go_one_way() -> None:
    faults = [
        f"{'.'.join(module)}: {written}"
        for path in MODULES
        if (module := parts_of(path))
        for target, written in imports_of(path)
        if target and faults_of(module, target)
    ]
    assert faults == []


def graph() -> dict[str, set[str]]:
    """Return {module: the modules of ours that it imports}."""
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        found = {".".join(target) for target, _ in imports_of(path) if target}
        imports[".".join(parts_of(path))] = found
    return imports


def reached(imports: dict[str, set[str]], start: str) -> set[str]:
    """The modules to which a chain of imports leads from `start`."""
    found: set[str] = set()
    todo = [start]
    while todo:
        new = imports.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def circles(imports: dict[str, set[str]]) -> list[str]:
    """The modules from which a chain of imports leads back to them."""
    return sorted(module for module in imports if module in reached(imports, module))


def test_no_imports_lead_in_a_circle_not_even_for_types() -> None:
    assert circles(graph()) == []


def test_models_and_services_do_not_lead_to_http() -> None:
    imports = graph()
    speaking = {".".join(parts_of(path)) for path in MODULES if speaks_http(path)}
    for module in imports:
        if module.endswith((".models", ".service")):
            assert not reached(imports, module) & speaking, module


def test_the_import_rules_can_fail() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert faults_of(("core", "clock"), ("db", "database"))
    assert faults_of(("users", "service"), ("auth", "service"))
    assert faults_of(("web", "access"), ("audit", "service"))
    assert not faults_of(("users", "routes"), ("web", "api"))
    assert not faults_of(("auth", "service"), ("users", "service"))
    assert speaks_http(PACKAGE / "users" / "routes.py")
    assert not speaks_http(PACKAGE / "users" / "service.py")


def test_the_import_rule_sees_imports_of_every_form() -> None:
    found = {target for target, _ in imports_of(PACKAGE / "app.py")}
    assert {(), ("cli",), ("users", "links"), ("db", "database"), ("web", "access")} <= found


def test_modules_of_the_package_import_each_other_relatively() -> None:
    for path in MODULES:
        assert "backend" not in outside_imports_of(path), path
        assert "tests" not in outside_imports_of(path), path


def test_modules_below_the_web_do_not_speak_http() -> None:
    below = ORDER[: ORDER.index("web")]
    for path in MODULES:
        module = parts_of(path)
        assert not module or module[0] not in below or not speaks_http(path), path


def test_the_environment_is_read_in_one_module() -> None:
    readers = {
        parts_of(path)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv"})
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and not node.level)
    }
    readers -= {
        parts_of(path)
        for path in MODULES
        if "os" not in outside_imports_of(path)  # an attribute of something else
    }
    assert readers == {("core", "settings")}


@pytest.mark.slow
def test_importing_a_module_does_nothing(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    names = [".".join(("backend", *parts_of(path))) for path in MODULES]
    names.remove("backend.wsgi")  # the entry point
    script = f"""
import importlib, logging, sys, threading
before = len(logging.root.handlers), threading.active_count(), logging.root.level
for name in {names!r}:
    importlib.import_module(name)
assert before == (len(logging.root.handlers), threading.active_count(), logging.root.level)
assert "peewee_migrate" not in sys.modules
"""
    before = {path for path in tree.rglob("*") if "__pycache__" not in path.parts}
    done = run(tree, "python", "-c", script, secret_key=None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path for path in tree.rglob("*") if "__pycache__" not in path.parts} == before


# --- the folders ---


def test_every_folder_is_in_the_order_and_every_subject_in_a_folder_of_its_name() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - set(ORDER) == set()
    assert set(SUBJECTS) - folders == set()


def test_the_configuration_folder_holds_no_package() -> None:
    assert not (ROOT / "config" / "__init__.py").exists()
    for name in ("development", "testing", "production"):
        assert (ROOT / "config" / f"{name}.env").is_file()


def test_every_subject_has_tests() -> None:
    tested = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    for subject in SUBJECTS:
        assert any(name.startswith(f"test_{subject}") for name in tested), subject


# --- settings ---

NAMES = [each.name.upper() for each in fields(Settings)]
FILE_NAMES = [f"{each.name.upper()}_FILE" for each in fields(Settings) if each.metadata["file"]]


def readme_settings() -> list[tuple[str, ...]]:
    """Return the rows of the table *name, form, default* in docs/settings.md, without backticks."""
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    [table] = re.findall(r"^\| name \| form \| default \|\n\|[-| :]+\|\n((?:\|.*\n)+)", text, re.M)
    return [
        tuple(cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|"))
        for line in table.splitlines()
    ]


def test_readme_has_every_setting_with_its_form_and_default() -> None:
    wanted = [
        (each.name.upper(), each.metadata["form"], each.metadata["default"])
        for each in fields(Settings)
    ]
    assert readme_settings() == wanted


def test_the_example_of_a_dotenv_file_names_every_setting_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text("utf-8")
    named = re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", text, re.M)
    assert set(NAMES) - set(named) == set()
    assert set(named) - {*NAMES, *FILE_NAMES} == set()


@pytest.mark.slow
def test_the_example_of_a_dotenv_file_starts_a_development_server(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / ".env").write_bytes((ROOT / ".env.example").read_bytes())
    script = "from backend.core.settings import Settings as S; print(S.load().environment)"
    assert run(tree, "python", "-c", script, secret_key=None).stdout == "development\n"


def test_compose_passes_on_every_setting_but_those_that_follow_from_it() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    for name in ("migrate", "app1", "app2"):
        service = services[name]
        assert service["env_file"] == [{"path": ".env", "required": False}]
        assert "instance:/app/instance" in service["volumes"]  # JWT_PRIVATE_KEY_FILE, shared
        fixed = {
            setting
            for setting, value in service["environment"].items()
            if not str(value).startswith(f"${{{setting}:-")
        }
        assert set(service["environment"]) <= set(NAMES)
        assert fixed == {"ENVIRONMENT", "HOST", "PORT", "DATABASE_URL", "REDIS_URL"}


def test_the_files_of_the_environments_name_settings_only() -> None:
    for path in (ROOT / "config").glob("*.env"):
        named = re.findall(r"^([A-Z][A-Z0-9_]+)=", path.read_text("utf-8"), re.M)
        assert set(named) <= set(NAMES), path


def test_every_setting_is_used() -> None:
    code = "".join(path.read_text("utf-8") for path in [*MODULES, ROOT / "wsgi.py"])
    code += (ROOT / "config" / "gunicorn.conf.py").read_text("utf-8")
    for each in fields(Settings):
        assert re.search(rf"[.\"]{each.name}\b", code), each.name


# --- codes of errors ---


def raised_codes() -> set[str]:
    """All codes that are written where a failure is raised, or answered without raising."""
    kinds = {"Failure", "Forbidden", "Conflict", "_refuse", "__init__"}
    found = set()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = node.args[:1] if name in kinds else node.args[2:] if name == "Invalid" else []
            given += [each.value for each in node.keywords if each.arg == "code"]
            found |= {each.value for each in given if isinstance(each, ast.Constant)}
    code_of_invalid = ast.unparse(tree_of(PACKAGE / "core" / "errors.py"))
    found |= set(re.findall(r"code: str='(\w+)'", code_of_invalid))
    return {code for code in found if isinstance(code, str) and code}


def test_every_code_that_is_raised_has_a_status() -> None:
    raised = raised_codes()
    assert len(raised) > 12
    assert raised - set(problems.CODES) == set()
    assert set(problems._OF_STATUS.values()) <= set(problems.CODES)


def test_every_code_that_has_a_status_is_raised() -> None:
    unused = set(problems.CODES) - raised_codes() - set(problems._OF_STATUS.values())
    assert unused == set()


def test_every_code_has_a_status_of_an_error_and_a_sentence() -> None:
    for code, (status, meaning) in problems.CODES.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert 400 <= status <= 599
        assert re.fullmatch(r"[A-Z].+\.", meaning)


# --- models and migrations ---


def test_every_table_is_made_by_a_migration() -> None:
    text = "".join(path.read_text("utf-8") for path in migrations.FOLDER.glob("[0-9]*.py"))
    made = set(re.findall(r'table_name = "(\w+)"', text))
    assert {model._meta.table_name for model in migrations.models()} <= made
    assert text.count("table_name =") == text.count("legacy_table_names = False")


# --- what is installed ---


def locked(name: str) -> dict[str, str]:
    """What a file of locked requirements pins: {name and version: the rest of the entry}."""
    text = (ROOT / name).read_text("utf-8")
    entries = re.split(r"^(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.M), flags=re.M)[1:]
    return {entry.split()[0]: entry for entry in entries}


def test_every_locked_requirement_has_hashes_and_no_address() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|--trusted", text)
        assert len(locked(name)) > 15
        for pin, entry in locked(name).items():
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pin), pin
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), pin


def test_development_is_locked_to_the_versions_that_run() -> None:
    assert set(locked("requirements.txt")) <= set(locked("requirements-dev.txt"))


def test_every_dependency_is_locked_and_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {pin.partition("==")[0] for pin in locked("requirements.txt")}
    for wanted in project["dependencies"]:
        assert re.split(r"[\[<>=;]", wanted)[0] in pinned, wanted


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == backend.__version__


# --- the text ---


def test_nothing_is_left_for_later() -> None:
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]))
    folders = ("backend", "config", "examples", "migrations", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    for path in [*paths, *ROOT.glob("*.*"), ROOT / "Makefile"]:
        if path.is_file() and path.suffix in {"", ".py", ".env", ".md", ".toml", ".yaml"}:
            assert not marks.search(path.read_text("utf-8")), path


def test_every_module_and_whatever_it_offers_says_what_it_is() -> None:
    kinds = ast.FunctionDef | ast.ClassDef
    for path in [*MODULES, ROOT / "wsgi.py", *migrations.FOLDER.glob("*.py")]:
        tree = tree_of(path)
        assert ast.get_docstring(tree), path
        offered = [node for node in tree.body if isinstance(node, kinds)]
        for node in offered:
            if path.parent == migrations.FOLDER or node.name.startswith("_"):
                continue
            assert ast.get_docstring(node), f"{path}: {node.name}"


# Beside the suite: folders of tests that are run by targets of their own.
RUNS = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")} - {"support"}


def test_every_test_file_says_what_it_tests() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert ast.get_docstring(tree_of(path)), path
        assert path.parent == ROOT / "tests" or path.parent.name in RUNS, path


def test_nothing_is_imported_from_a_test_or_a_conftest() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom):
                names = {*str(node.module).split("."), *(each.name for each in node.names)}
                theirs = [name for name in names if re.match(r"test_\w+$|conftest$", name)]
                assert theirs == [], f"{path}: {ast.unparse(node)}"


def test_a_conftest_holds_fixtures_and_what_pytest_calls() -> None:
    for path in (ROOT / "tests").rglob("conftest.py"):
        for node in tree_of(path).body:
            assert not isinstance(node, ast.ClassDef), f"{path}: {node.name}"
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("pytest_"):
                marks = " ".join(map(ast.unparse, node.decorator_list))
                assert "pytest.fixture" in marks, f"{path}: {node.name}"


def test_every_function_of_ours_has_type_hints() -> None:
    for path in [*MODULES, *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                assert node.returns is not None, f"{path}: {node.name}"
