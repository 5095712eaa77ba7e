"""The pages: requests that work as they are written, and links that resolve."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from backend.crypto import signing_keys

from .support.commands import flask_of
from .support.databases import ON_SQLITE
from .support.people import PASSWORD
from .support.settings import make_settings

ROOT = Path(__file__).parents[1]


REQUESTS = ("api", "accounts", "keys", "protect", "metrics", "operations", "architecture")
# Refused as written: on purpose, or because they need a code from an authenticator app.
REFUSED = {("401", "/v1/auth/me"), ("403", "/v1/auth/mfa/confirm"), ("409", "/v1/auth/mfa/disable")}
COMMANDS = ("accounts", "commands", "deploy", "keys", "operations", "settings")
# What a command wants that a test has not: a terminal, a file with a key.
WANTS = ("no terminal to ask for a password", "there is no API key in that text")
# Runs before the requests of a page, which then print their status and address.
[PREPARED] = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)
PRELUDE = rf"""
{PREPARED}
RECOVERY_CODE=AAAAAAA-AAAAAAA-AAAAAAA-AAAAA METRICS_TOKEN=none
curl() {{ command curl -sS -w '\n%{{http_code}} %{{url_effective}}\n' "$@"; }}
"""

LINKING = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING += [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "llms.txt")]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_first_calls_work_as_they_stand(address: str) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    [script] = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    script = script.replace("http://127.0.0.1:8000", address)
    script = script.replace("the password that was printed", PASSWORD)
    script = script.replace("curl -s", "curl -sS --fail-with-body")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"method":"session"' in done.stdout
    assert '"method":"api_key"' in done.stdout
    assert '"username":"alice"' in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("page", REQUESTS)
def test_the_requests_on_a_page_are_accepted(address: str, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    requests = re.findall(r"^```\n((?:curl|send) .*?)^```", text, re.MULTILINE | re.DOTALL)
    script = "\n".join([PRELUDE, *requests])
    script = script.replace("http://127.0.0.1:8000", address)
    script = script.replace("the password that was printed", PASSWORD)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = re.findall(rf"^(\d+) {address}([^?\n]*)", done.stdout, re.MULTILINE)
    assert len(answers) >= len(requests) > 0
    refused = {answer for answer in answers if not answer[0].startswith("2")}
    assert refused <= REFUSED, done.stdout


@ON_SQLITE
@pytest.mark.parametrize("page", COMMANDS)
def test_the_commands_on_a_page_succeed(
    make_app: Callable[..., Flask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    for name, content in re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", text, re.M | re.S):
        (tmp_path / name).write_text(content, "utf-8")
    (tmp_path / "instance").mkdir()
    monkeypatch.chdir(tmp_path)
    signing = {"jwt_algorithm": "EdDSA", "jwt_private_key_file": tmp_path / "keys.pem"}
    signing_keys.add(make_settings(**signing))
    flask = flask_of(make_app(mail_url="memory:", **signing))
    commands = re.findall(r"^\.venv/bin/flask --app wsgi (.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        arguments = shlex.split(re.sub("[<>].*", "", command), comments=True)
        result = flask(*arguments, stdin=f"{PASSWORD}\n{PASSWORD}\n")
        wants = any(words in result.stderr for words in WANTS)
        assert result.exit_code == 0 or wants, (command, result.output)


# --- links ---


def without_code(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def broken_links_of(page: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of one."""
    broken = []
    for link in re.findall(r"\]\(([^()\s]+)\)", without_code(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not re.match(r"[a-z]+:", link) and (
            not target.exists() or (anchor and anchor not in anchors_of(target))
        ):
            broken.append(link)
    return broken


def test_every_link_between_the_pages_resolves() -> None:
    assert {page.name: broken_links_of(page) for page in LINKING if broken_links_of(page)} == {}


def test_every_page_is_linked_from_the_readme_and_from_llms_txt() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    for name in ("README.md", "llms.txt"):
        linked = re.findall(r"\]\(([^()#\s]+)", (ROOT / name).read_text("utf-8"))
        assert pages - set(linked) == set(), name


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, with `code`\n[a](#a-heading-with-code) [b](#other) [c](no.md)\n"
        "[d](page.md#x) [e](page.md) [f](https://example.org/x#y)\n```\n[g](no.md)\n```\n"
    )
    assert broken_links_of(page) == ["#other", "no.md", "page.md#x"]
