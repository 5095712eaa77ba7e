"""Settings: where they come from, what cannot be parsed, what production refuses."""

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from backend.core.settings import ROOT, Settings, SettingsError
from backend.core.settings_checks import require_safe
from backend.db.sqlite import sqlite_path

from .support.processes import copy_tree, run
from .support.settings import process_environ

SECRET = "kfjQ8Zr2mN4pX7vB9wL1tY6hG3dS5aC0eRuTiOpMnBv"
SENTINEL = "hunter2~sentinel"


def load(dotenv: Path | None = None, **environ: str) -> Settings:
    """Settings from exactly this environment; in production unless it says otherwise."""
    return Settings.load({"SECRET_KEY": SECRET, **environ}, dotenv=dotenv)


def refusals(**environ: str) -> list[str]:
    """The sentences with which such an environment is refused."""
    with pytest.raises(SettingsError) as refusal:
        require_safe(load(**environ))
    assert str(refusal.value) == "\n".join(refusal.value.problems)
    return refusal.value.problems


@pytest.fixture
def dotenv(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a `.env` file of the lines given, and returns its path."""

    def write(*lines: str) -> Path:
        path = tmp_path / ".env"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path

    return write


# --- where a value comes from ---


def test_the_environment_wins_over_dotenv_over_the_environments_file_over_the_default(
    dotenv: Callable[..., Path],
) -> None:
    assert load().log_level == "INFO"
    assert load(ENVIRONMENT="development").log_level == "DEBUG"
    path = dotenv("LOG_LEVEL=WARNING")
    assert load(path, ENVIRONMENT="development").log_level == "WARNING"
    assert load(path, ENVIRONMENT="development", LOG_LEVEL="ERROR").log_level == "ERROR"


def test_an_empty_value_counts_as_not_set(dotenv: Callable[..., Path]) -> None:
    assert load(LOG_LEVEL="", PORT="   ").port == 8000
    assert load(dotenv("LOG_LEVEL=WARNING"), LOG_LEVEL=" ").log_level == "WARNING"
    assert load(dotenv("LOG_LEVEL="), ENVIRONMENT="development").log_level == "DEBUG"
    assert load(ENVIRONMENT="").environment == "production"
    assert load(SECRET_KEY_FILE="").secret_key == SECRET


def test_blanks_around_a_value_do_not_count() -> None:
    assert load(PORT=" 8001 ", CORS_ORIGINS=" https://a.example , https://b.example ,") == load(
        PORT="8001", CORS_ORIGINS="https://a.example,https://b.example"
    )


def test_dotenv_may_say_which_environment_it_is(dotenv: Callable[..., Path]) -> None:
    settings = load(dotenv("ENVIRONMENT=development"))
    assert settings.environment == "development"
    assert settings.docs_enabled is True


def test_a_dotenv_file_may_be_missing(tmp_path: Path) -> None:
    assert load(tmp_path / ".env") == load()


def test_defaults_may_be_made_of_other_settings() -> None:
    settings = load(PORT="8001", THREADS="3")
    assert settings.public_url == "http://127.0.0.1:8001"
    assert settings.jwt_issuer == settings.jwt_audience == settings.public_url
    assert settings.database_pool_size == 3
    assert load(PUBLIC_URL="https://id.example").jwt_issuer == "https://id.example"


def test_production_is_the_default_and_shows_no_documentation() -> None:
    settings = require_safe(load())
    assert (settings.environment, settings.strict) == ("production", True)
    assert (settings.docs_enabled, settings.flask_debug) == (False, False)
    assert (settings.log_level, settings.log_format) == ("INFO", "json")


def test_development_shows_documentation_and_logs_text() -> None:
    settings = require_safe(load(ENVIRONMENT="development"))
    assert settings.docs_enabled is True
    assert (settings.log_level, settings.log_format) == ("DEBUG", "text")


# --- files that hold a secret ---

OF_A_FORM = {
    "DATABASE_URL": "postgresql://u:p@db/app",
    "REDIS_URL": "redis://u:p@limits/0",
    "MAIL_URL": "smtp://u:p@mail.example",
}
FROM_FILE = ["SECRET_KEY", "SECRET_KEY_FALLBACKS", "ADMIN_PASSWORD", *OF_A_FORM]


@pytest.mark.parametrize("name", FROM_FILE)
def test_a_secret_may_stand_in_a_file(name: str, tmp_path: Path) -> None:
    text = OF_A_FORM.get(name) or secrets.token_urlsafe(48)
    path = tmp_path / "secret"
    path.write_text(f"{text}\n", "utf-8")
    settings = Settings.load({f"{name}_FILE": str(path)}, dotenv=None)
    value = getattr(settings, name.lower())
    assert value in {text, (text,)}


def test_only_secrets_may_stand_in_a_file() -> None:
    assert {each.name.upper() for each in fields(Settings) if each.metadata["file"]} >= set(
        FROM_FILE
    )
    assert load(PORT_FILE="/nowhere").port == 8000


def test_a_value_wins_over_a_file_from_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("from the file", "utf-8")
    assert load(SECRET_KEY_FILE=str(path)).secret_key == SECRET


def test_a_file_named_by_the_environment_wins_over_a_value_in_dotenv(
    dotenv: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET[::-1], "utf-8")
    environ = {"SECRET_KEY_FILE": str(path)}
    settings = Settings.load(environ, dotenv=dotenv(f"SECRET_KEY={SECRET}"))
    assert settings.secret_key == SECRET[::-1]


@pytest.mark.parametrize("name", FROM_FILE)
def test_a_file_that_cannot_be_read_is_told_by_name(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        [sentence] = refusals(**{name: "", f"{name}_FILE": str(path)})
        assert sentence.startswith(f"{name}_FILE cannot be read: ")


# --- what cannot be parsed ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ENVIRONMENT", "../production"),
        ("ENVIRONMENT", "prodction"),
        ("ENVIRONMENT", "Production"),
        ("HOST", "a b"),
        ("HOST", "https://x"),
        ("HOST", "127.0.0.1:8000"),
        ("HOST", "::x"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "80.0"),
        ("PORT", "\uff18\uff10\uff10\uff10"),
        ("PORT", "8_000"),
        ("SERVICE_NAME", "https://id.example"),
        ("SERVICE_NAME", "<b>"),
        ("SERVICE_NAME", "two\nlines"),
        ("SERVICE_NAME", "turned \u202e round"),
        ("SERVICE_NAME", "x" * 65),
        ("PUBLIC_URL", "id.example"),
        ("PUBLIC_URL", "ftp://id.example"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://id.example/?a=b"),
        ("PUBLIC_URL", "http://[::1"),
        ("PUBLIC_URL", "https://a b"),
        ("PUBLIC_URL", "https://user:password@id.example"),
        ("PUBLIC_URL", "https://id.example:65536"),
        ("PUBLIC_URL", "https://id.example/a b"),
        ("ADMIN_USERNAME", "a b"),
        ("ADMIN_EMAIL", "admin"),
        ("ALLOW_HTTP", "perhaps"),
        ("THREADS", "0"),
        ("DATABASE_URL", "mysql://u:p@db/app"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite://backend.db"),
        ("DATABASE_URL", "instance/backend.db"),
        ("DATABASE_TIMEOUT", "0"),
        ("REDIS_URL", "redis"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_URL", "redis://localhost:x"),
        ("REDIS_URL", "redis://localhost:65536"),
        ("REDIS_URL", "redis://localhost/limits"),
        ("REDIS_URL", "redis://localhost/0?socket_timeout=x"),
        ("RATE_LIMIT_DEFAULT", "100"),
        ("RATE_LIMIT_DEFAULT", "0/60"),
        ("RATE_LIMIT_DEFAULT", "1000000001/60"),
        ("RATE_LIMIT_DEFAULT", "100/0"),
        ("RATE_LIMIT_DEFAULT", "100/86401"),
        ("RATE_LIMIT_DEFAULT", "100/minute"),
        ("RATE_LIMIT_MAX", "100"),
        ("RATE_LIMIT_MAX", "0/60"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.example,*"),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "https://a.example/"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "https://:::"),
        ("CORS_ORIGINS", "https://a..example"),
        ("CORS_ORIGINS", "https://a.example:0"),
        ("CORS_ORIGINS", "https://A.example"),
        ("TRUSTED_PROXIES", "proxy"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/255.0.0.0"),
        ("TRUSTED_PROXIES", "10.0.0.0/0.255.255.255"),
        ("TRUSTED_HOSTS", "https://x"),
        ("TRUSTED_HOSTS", "a b"),
        ("TRUSTED_HOSTS", "id.example,id.example/path"),
        ("TRUSTED_HOSTS", "*.example"),
        ("TRUSTED_HOSTS", "user@id.example"),
        ("TRUSTED_HOSTS", "id.example:http"),
        ("TRUSTED_HOSTS", "b\u00fccher.example"),
        ("PASSWORD_MIN_LENGTH", "7"),
        ("BCRYPT_ROUNDS", "3"),
        ("BCRYPT_ROUNDS", "twelve"),
        ("API_KEY_PREFIX", "BT"),
        ("API_KEY_PREFIX", "a_b"),
        ("MAIL_URL", "mail.example.org"),
        ("MAIL_URL", "http://mail.example.org"),
        ("MAIL_URL", "smtp://"),
        ("MAIL_URL", "smtp://mail.example.org:65536"),
        ("MAIL_URL", "smtp://user@mail.example.org"),
        ("MAIL_URL", "smtp://mail.example.org/inbox"),
        ("MAIL_URL", "smtp://mail.example.org?starttls=no"),
        ("MAIL_URL", "smtps://mail.example.org?starttls=never"),
        ("MAIL_FROM", "Accounts"),
        ("MAIL_FROM", "Accounts <accounts>"),
        ("MAIL_FROM", "a@example.org, b@example.org"),
        ("MAIL_FROM", "Accounts\nBcc: x@example.org <a@example.org>"),
        ("PASSWORD_URL", "/password"),
        ("PASSWORD_URL", "https://id.example/#password"),
        ("PASSWORD_URL", "javascript://id.example/password"),
        ("LOG_LEVEL", "info"),
        ("LOG_FORMAT", "xml"),
        ("METRICS_TOKEN", "two words"),
        ("DOCS_ENABLED", "yes"),
    ],
)
def test_a_value_that_cannot_be_parsed_is_told_by_name_and_form(name: str, text: str) -> None:
    [form] = [each.metadata["form"] for each in fields(Settings) if each.name == name.lower()]
    assert refusals(**{name: text}) == [f"{name} is invalid; expected: {form}."]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HOST", "*"),
        ("HOST", "::"),
        ("HOST", "localhost"),
        ("PUBLIC_URL", "http://[::1]:8000/accounts"),
        ("CORS_ORIGINS", "https://[2001:db8::1]:8443"),
        ("TRUSTED_HOSTS", "id.example:8443,xn--bcher-kva.example,192.0.2.1,[::1]:8000,my_host"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,2001:db8::/32,192.0.2.1"),
    ],
)
def test_host_names_and_addresses_are_taken_as_people_write_them(name: str, text: str) -> None:
    assert load(**{name: text})


@pytest.mark.slow
def test_an_environment_of_your_own_needs_a_file_with_its_settings(tmp_path: Path) -> None:
    tree, start = copy_tree(tmp_path), ["-c", "import wsgi"]
    refused = run(tree, "python", *start, environment="staging")
    assert refused.returncode != 0
    assert "ENVIRONMENT is invalid; expected: " in refused.stderr
    (tree / "config" / "staging.env").write_text("METRICS_ENABLED=true\n", "utf-8")
    tell = "from wsgi import app; s = app.extensions['backend'].settings; "
    tell += "print(s.environment, s.strict, s.metrics_enabled)"
    assert run(tree, "python", "-c", tell, environment="staging").stdout == "staging True True\n"


@pytest.mark.slow
def test_make_run_takes_the_environment_from_dotenv_before_it_falls_back_to_development(
    tmp_path: Path,
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    for name in ("flask", "python"):
        (bin_folder / name).write_text("#!/bin/sh\necho $ENVIRONMENT\n", "utf-8")
        (bin_folder / name).chmod(0o755)
    (bin_folder / "dotenv").symlink_to(Path(sys.executable).parent / "dotenv")
    (tmp_path / "requirements.txt").touch()
    (tmp_path / ".venv" / "runtime").touch()

    def environments(**given: str) -> set[str]:
        environ = {"PATH": os.environ["PATH"], **given}
        command = ["make", "--silent", "run"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    assert environments() == {"development"}
    (tmp_path / ".env").write_text("ENVIRONMENT=testing\n", "utf-8")
    assert environments() == {"testing"}
    assert environments(ENVIRONMENT="production") == {"production"}


def test_all_values_that_cannot_be_parsed_are_told_at_once() -> None:
    told = refusals(PORT="x", LOG_LEVEL="x", BCRYPT_ROUNDS="x", SECRET_KEY_FILE="x", SECRET_KEY="")
    assert [sentence.split()[0] for sentence in told] == [
        "PORT",
        "SECRET_KEY_FILE",
        "BCRYPT_ROUNDS",
        "LOG_LEVEL",
    ]


def test_no_refusal_repeats_a_value() -> None:
    everything = {each.name.upper(): SENTINEL for each in fields(Settings)}
    assert len(refusals(**everything)) > 20
    assert SENTINEL not in str(refusals(**everything))
    assert SENTINEL not in str(refusals(SECRET_KEY="", SECRET_KEY_FILE=f"/{SENTINEL}"))
    assert SENTINEL not in str(refusals(SECRET_KEY=SENTINEL, ADMIN_PASSWORD=SENTINEL))


def test_a_printed_settings_object_shows_no_secret() -> None:
    shown = repr(
        load(
            SECRET_KEY=SENTINEL,
            SECRET_KEY_FALLBACKS=SENTINEL,
            ADMIN_PASSWORD=SENTINEL,
            DATABASE_URL=f"postgresql://u:{SENTINEL}@db/app",
            MAIL_URL=f"smtp://u:{SENTINEL}@mail.example",
        )
    )
    assert SENTINEL not in shown
    assert "bcrypt_rounds=12" in shown


# --- what production refuses ---

KNOWN_EXAMPLES = [
    "a-secret-for-testing-that-everybody-knows",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "change-me-change-me-change-me-change-me",
    "ChangeThisToSomethingRandomPlease1234567",
    "your-secret-key-goes-here-0123456789abcdef",
    "django-insecure-0123456789abcdefghijklmnop",
]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"SECRET_KEY": SECRET[:31]}, "SECRET_KEY"),
        ({"SECRET_KEY": "x" * 64}, "SECRET_KEY"),
        ({"SECRET_KEY": "abcdefg" * 8}, "SECRET_KEY"),
        *(({"SECRET_KEY": text}, "SECRET_KEY") for text in KNOWN_EXAMPLES),
        *(({"SECRET_KEY_FALLBACKS": f"{SECRET},{text}"}, "SECRET") for text in KNOWN_EXAMPLES),
        ({"FLASK_DEBUG": "1"}, "FLASK_DEBUG"),
        ({"FLASK_DEBUG": "true"}, "FLASK_DEBUG"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS"),
        ({"BCRYPT_ROUNDS": "9"}, "BCRYPT_ROUNDS"),
        ({"PUBLIC_URL": "http://id.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://10.0.0.1:8000"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://localhost.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://127.0.0.1.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://127.0.0.1@id.example"}, "PUBLIC_URL"),
        ({"MAIL_URL": "smtp://user:password@mail.example?starttls=never"}, "MAIL_URL"),
    ],
)
@pytest.mark.parametrize("environment", ["", "production"])
def test_production_refuses_what_is_unsafe(
    values: dict[str, str], name: str, environment: str
) -> None:
    [sentence] = refusals(ENVIRONMENT=environment, **values)
    assert sentence.startswith(name)
    assert all(text not in sentence for text in values.values() if len(text) > 5)


@pytest.mark.slow
def test_a_missing_or_short_secret_is_told_with_the_command_that_makes_one() -> None:
    for secret in ("", "short"):
        [sentence, *_] = refusals(SECRET_KEY=secret)
        command = sentence.partition("make one with: python -c ")[2].strip('"')
        made = subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, check=True
        )
        assert require_safe(load(SECRET_KEY=made.stdout.strip()))


def test_several_refusals_are_told_at_once() -> None:
    told = refusals(
        SECRET_KEY="", FLASK_DEBUG="1", BCRYPT_ROUNDS="4", PUBLIC_URL="http://id.example"
    )
    assert [sentence.split()[0] for sentence in told] == [
        "SECRET_KEY",
        "FLASK_DEBUG",
        "BCRYPT_ROUNDS",
        "PUBLIC_URL",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"PUBLIC_URL": "https://id.example/auth"},
        {"PUBLIC_URL": "http://localhost:8000"},
        {"PUBLIC_URL": "http://127.8.8.8"},
        {"PUBLIC_URL": "http://[::1]:8000"},
        {"PUBLIC_URL": "http://id.internal", "ALLOW_HTTP": "true"},
        {"BCRYPT_ROUNDS": "10"},
        {"SECRET_KEY": SECRET[:32]},
        {"SECRET_KEY_FALLBACKS": f"{SECRET[::-1]},{SECRET.swapcase()}"},
        {"CORS_ORIGINS": "https://app.example"},
        {"MAIL_URL": "smtp://user%40example.org:p%2Fw@mail.example"},
        {"MAIL_URL": "smtp://user@example.org:pw@mail.example:587/"},
        {"MAIL_URL": "smtps://user:pw@[2001:db8::1]:465"},
        {"MAIL_URL": "smtp://relay.internal?starttls=never"},
        {"MAIL_URL": "smtp://user:pw@127.0.0.1?starttls=never"},
        {"MAIL_FROM": "accounts@example.org"},
        {"MAIL_FROM": "Example, Inc. <accounts@example.org>"},
        {"PASSWORD_URL": "https://app.example/reset/?from=mail"},
    ],
)
def test_production_accepts_what_is_safe(values: dict[str, str]) -> None:
    assert require_safe(load(**values)).strict is True


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    [sentence] = refusals(SECRET_KEY="", SECRET_KEY_FILE=str(tmp_path / "empty"))
    assert sentence.startswith("SECRET_KEY is not set")


# --- the secret of development ---

SHOW_SECRET = "from backend.core.settings import Settings; print(Settings.load().secret_key)"


@pytest.mark.slow
def test_processes_that_start_at_once_agree_on_one_secret_made_for_development(
    tmp_path: Path,
) -> None:
    tree = copy_tree(tmp_path / "tree")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHOW_SECRET],
            cwd=tree,
            env=process_environ(environment="development", secret_key=None),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    shown = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    [secret] = shown
    path = tree / "instance" / "secret_key"
    assert len(secret.strip()) >= 32
    assert path.read_text("ascii") == secret.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
def test_no_secret_is_made_outside_of_development(tree: Path) -> None:
    shown = run(tree, "python", "-c", SHOW_SECRET, secret_key=None)
    assert (shown.stdout, shown.returncode) == ("\n", 0)
    assert not (tree / "instance" / "secret_key").exists()


# --- the database's address ---


def test_the_old_name_of_postgresql_is_accepted() -> None:
    assert load(DATABASE_URL="postgres://u:p@db/app").database_url == "postgresql://u:p@db/app"
    url = "postgresql://u:postgres%3A%2F%2Fx@db/app"
    assert load(DATABASE_URL=url).database_url == url


def test_an_address_of_postgresql_may_name_several_hosts_and_parameters() -> None:
    url = "postgresql://u:p@one:5432,two:5433/app?target_session_attrs=read-write&sslmode=require"
    assert load(DATABASE_URL=url).database_url == url
    with pytest.raises(SettingsError):
        load(DATABASE_URL="postgresql://u:p@one:5432,two:five/app")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "postgresql://u:hunter2@db/app?pgbouncer=true",
            "'pgbouncer': set DATABASE_PREPARED_STATEMENTS=false",
        ),
        ("postgres://u:hunter2@db/app?sslmode=require&schema=x", "'schema': use options="),
        ("postgresql:///app?connection_limit=5", "'connection_limit': set DATABASE_POOL_SIZE"),
        ("postgresql://u:hunter?2@db/app?sslmod=require", "'sslmod': remove it"),
        ("sqlite:////tmp/x.db?mode=ro", "'mode': remove it"),
        ("sqlite:///x.db?timeout=30&mode=ro", "'timeout': remove it"),
    ],
)
def test_a_parameter_that_a_database_url_cannot_have_is_refused_by_name(
    url: str, words: str
) -> None:
    [sentence] = refusals(DATABASE_URL=url)
    assert sentence.startswith("DATABASE_URL is invalid; expected: sqlite:///path or postgresql://")
    assert f" Unknown parameter {words}" in sentence
    assert "hunter" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter/two?three=4@db/app",
        "postgresql://u:hunter/2?sslmode@db/app",
        "postgresql://u:hunter2@db/app?hunter-3=x",
        "postgresql://u:hunter2@db/app?sslmode=a=b",
    ],
)
def test_nothing_of_a_password_is_taken_for_the_name_of_a_parameter(url: str) -> None:
    [sentence] = refusals(DATABASE_URL=url)
    assert re.fullmatch(r"DATABASE_URL is invalid; expected: [^']+\.", sentence)


def test_a_password_may_hold_a_question_mark_and_a_parameter_an_at_sign() -> None:
    for url in ("postgresql://u:p?w=1@db/app?sslmode=require", "postgresql:///app?user=u@db"):
        assert load(DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///instance/backend.db", ROOT / "instance" / "backend.db"),
        ("sqlite:///./here.db", ROOT / "here.db"),
        ("sqlite:////var/lib/backend.db", Path("/var/lib/backend.db")),
    ],
)
def test_a_relative_path_of_a_database_counts_from_wsgi(url: str, path: Path) -> None:
    assert sqlite_path(load(DATABASE_URL=url)) == path
