"""The one typed list of settings, and how they are read.

A setting comes from the environment, otherwise from `.env`, otherwise from
`config/<ENVIRONMENT>.env`, otherwise from its default. An empty value counts as not set. Only this
module reads `os.environ`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from .database_url import UnknownParameter, parse_database_url
from .paths import ROOT
from .redis_url import REDIS_FORM, parse_redis_url
from .settings_parsers import (
    MAIL_ADDRESS,
    VISIBLE,
    Limit,
    Network,
    display_name,
    environment_file,
    environment_name,
    flag,
    hosts,
    limit,
    listen_address,
    mail_server,
    match,
    networks,
    origins,
    page_address,
    rate,
    roles,
    texts,
    web_address,
    whole,
)


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one sentence per reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _setting(parse: Callable[[str], Any], default: str, form: str, *, file: bool = False) -> Any:
    """Declare a field that `Settings.load` sets.

    `{NAME}` in a default refers to another setting. With `file`, NAME_FILE works too.
    """
    about = {"parse": parse, "default": default, "form": form, "file": file}
    return field(metadata=about, repr=not file)  # settings that may come from a file are secrets


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings, parsed. A field's name in upper case is the setting's name."""

    environment: str = _setting(
        environment_name,
        "production",
        "production, development, testing, or the NAME of a file config/NAME.env",
    )
    host: str = _setting(listen_address, "127.0.0.1", "address to listen on; * for all")
    port: int = _setting(whole(1, 65535), "8000", "1 to 65535")
    public_url: str = _setting(web_address, "http://127.0.0.1:{PORT}", "http(s)://host[/prefix]")
    password_url: str = _setting(
        page_address,
        "{PUBLIC_URL}/password",
        "address of the page that mail links open, without #",
    )
    service_name: str = _setting(
        display_name,
        "Backend",
        "1 to 64 characters without : < >; shown in e-mails, pages, authenticator apps",
    )
    allow_http: bool = _setting(flag, "false", "true or false")
    threads: int = _setting(whole(1, 1000), "8", "1 to 1000 per process")
    workers: int = _setting(whole(1, 1000), "1", "1 to 1000 processes (gunicorn)")
    database_url: str = _setting(
        parse_database_url,
        "sqlite:///instance/backend.db",
        "sqlite:///path or postgresql://user:password@host/name",
        file=True,
    )
    database_pool_size: int = _setting(whole(1, 1000), "{THREADS}", "1 to 1000 connections")
    database_timeout: int = _setting(whole(1, 60), "3", "1 to 60 seconds")
    database_prepared_statements: bool = _setting(
        flag, "true", "true or false; false behind PgBouncer"
    )
    redis_url: str = _setting(parse_redis_url, "", REDIS_FORM, file=True)
    secret_key: str = _setting(str, "", "at least 32 random bytes", file=True)
    secret_key_fallbacks: tuple[str, ...] = _setting(
        texts, "", "earlier secrets, separated by commas", file=True
    )
    admin_username: str = _setting(
        match("[A-Za-z0-9._-]{3,64}"), "admin", "3 to 64 letters, digits, . _ -"
    )
    admin_email: str = _setting(match(r"[^@\s]+@[^@\s]+"), "admin@example.com", "e-mail address")
    admin_password: str = _setting(str, "", "password of the first administrator", file=True)
    cors_origins: tuple[str, ...] = _setting(
        origins, "", "exact origins, separated by commas; not *"
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        networks, "", "addresses or CIDRs, separated by commas"
    )
    trusted_hosts: tuple[str, ...] = _setting(
        hosts, "", "ASCII host names, separated by commas; empty: any"
    )
    # RSA passes here, so that `signing_keys` can explain why it is refused.
    jwt_algorithm: str = _setting(
        match("HS256|EdDSA|ES256|[RP]S(256|384|512)"), "HS256", "HS256, EdDSA, ES256"
    )
    jwt_private_key_file: str = _setting(
        str, "", "path of a file of PEM keys; the first signs, all verify"
    )
    jwt_issuer: str = _setting(str, "{PUBLIC_URL}", "text")
    jwt_audience: str = _setting(str, "{PUBLIC_URL}", "text")
    jwt_access_token_expire_minutes: int = _setting(whole(1, 1440), "10", "1 to 1440 minutes")
    jwt_refresh_token_expire_days: int = _setting(whole(1, 3650), "7", "1 to 3650 days without use")
    session_absolute_days: int = _setting(whole(1, 3650), "30", "1 to 3650 days")
    refresh_grace_seconds: int = _setting(whole(0, 300), "10", "0 to 300 seconds")
    max_sessions_per_user: int = _setting(whole(1, 10_000), "20", "1 to 10000")
    username_hold_days: int = _setting(whole(0, 36_500), "90", "0 to 36500; 0: not held")
    password_min_length: int = _setting(whole(8, 1024), "15", "8 to 1024 characters")
    bcrypt_rounds: int = _setting(whole(4, 18), "12", "4 to 18; at least 10 in production")
    login_attempts: Limit = _setting(limit, "10/300", "failures/seconds per account and address")  # noqa: RUF009
    login_attempts_per_address: Limit = _setting(limit, "100/300", "failures/seconds per address")  # noqa: RUF009
    login_attempts_per_account: Limit = _setting(  # noqa: RUF009
        limit, "100/86400", "failures/seconds per account"
    )
    mfa_required_roles: tuple[str, ...] = _setting(roles, "", "user, admin or user,admin")
    api_key_prefix: str = _setting(
        match("[a-z][a-z0-9]{1,15}"), "bt", "2 to 16 characters a-z and 0-9, the first a letter"
    )
    max_keys_per_user: int = _setting(whole(1, 1_000_000), "100", "1 to 1000000")
    rate_limit_default: Limit | None = _setting(rate, "", "uses/seconds for keys without a limit")  # noqa: RUF009
    rate_limit_max: Limit | None = _setting(rate, "", "uses/seconds, the maximum for any key")  # noqa: RUF009
    disable_keys_unused_days: int = _setting(whole(0, 36_500), "0", "0 to 36500; 0: never")
    audit_retention_days: int = _setting(whole(0, 36_500), "365", "0 to 36500; 0: keep forever")
    mail_url: str = _setting(
        mail_server, "", "smtp(s)://[user:password@]host[:port], console:, memory:", file=True
    )
    mail_from: str = _setting(
        match(f"|{MAIL_ADDRESS}|[^<>\\x00-\\x1f]*<{MAIL_ADDRESS}>"),
        "",
        "address, or Name <address>",
    )
    log_level: str = _setting(
        match("DEBUG|INFO|WARNING|ERROR"), "INFO", "DEBUG, INFO, WARNING, ERROR"
    )
    log_format: str = _setting(match("json|text"), "json", "json or text")
    log_file: str = _setting(str, "", "path of a file for JSON lines, in addition to the console")
    metrics_enabled: bool = _setting(flag, "false", "true or false")
    metrics_token: str = _setting(
        match(f"|{VISIBLE}"), "", "bearer token for reading metrics; empty: anyone may", file=True
    )
    docs_enabled: bool = _setting(flag, "false", "true or false")
    flask_debug: bool = _setting(flag, "false", "true or false; refused in production")

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = ROOT / ".env"
    ) -> Settings:
        """Read and parse all settings. Raises SettingsError that names each invalid one.

        For tests, `environ` replaces the process's environment, and `dotenv` the `.env` file.
        """
        given = _clean(os.environ if environ is None else environ)
        try:
            if dotenv:
                given = _over(_clean(dotenv_values(dotenv)), given)
            environment = given.get("ENVIRONMENT", "production")
            if re.fullmatch("[a-z]+", environment):
                given = _over(_clean(dotenv_values(environment_file(environment))), given)
        except ValueError:
            raise SettingsError(["The .env file is not UTF-8."]) from None
        except OSError as error:
            raise SettingsError([f"{error.filename} cannot be read: {error.strerror}."]) from None
        settings, problems = _parse(given)
        if problems:
            raise SettingsError(problems)
        return settings

    @property
    def strict(self) -> bool:
        """Return True in every environment except development and testing."""
        return self.environment not in {"development", "testing"}

    @property
    def database_connections(self) -> int:
        """The maximum for a process: one thread stays free for requests that need no connection."""
        return max(1, min(self.database_pool_size, self.threads - 1))


def setting_names() -> set[str]:
    """Return the names that can be set in the environment and `.env`, including NAME_FILE."""
    return {
        each.name.upper() + suffix
        for each in fields(Settings)
        for suffix in (("", "_FILE") if each.metadata["file"] else ("",))
    }


def child_environ() -> dict[str, str]:
    """Return the environment for other programs, without our settings, which include secrets."""
    ours = setting_names()
    return {name: text for name, text in os.environ.items() if name not in ours}


def _clean(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text.strip() for name, text in values.items() if text and text.strip()}


def _over(lower: dict[str, str], upper: dict[str, str]) -> dict[str, str]:
    """Merge both, where `upper` wins; its NAME also overrides a NAME_FILE, and vice versa."""
    kept = {
        name: text
        for name, text in lower.items()
        if f"{name}_FILE" not in upper and name.removesuffix("_FILE") not in upper
    }
    return kept | upper


def _parse(given: dict[str, str]) -> tuple[Any, list[str]]:
    """Return (settings, []), or (None, one sentence for each setting that cannot be parsed)."""
    problems: list[str] = []
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    for each in fields(Settings):
        name, about = each.name.upper(), each.metadata
        try:
            text = _read(given, name, file=about["file"])
            text = about["default"].format_map(texts) if text is None else text
            values[each.name] = about["parse"](text)
            texts[name] = str(values[each.name])
        except OSError as error:
            problems.append(f"{name}_FILE cannot be read: {error.strerror}.")
        except ValueError as error:
            # Do not repeat the text: it may be a secret.
            why = f" {error}" if isinstance(error, UnknownParameter) else ""
            problems.append(f"{name} is invalid; expected: {about['form']}.{why}")
        except KeyError:
            pass  # its default refers to a setting that was refused above
    if problems:
        return None, problems
    if not values["secret_key"] and values["environment"] == "development":
        try:
            values["secret_key"] = _development_secret(ROOT / "instance" / "secret_key")
        except OSError as error:
            return None, [f"SECRET_KEY is not set, and a new one cannot be saved: {error}."]
    return Settings(**values), []


def _read(given: dict[str, str], name: str, *, file: bool) -> str | None:
    if file and name not in given and f"{name}_FILE" in given:
        return (ROOT / given[f"{name}_FILE"]).read_text("utf-8").strip()
    return given.get(name)


def _development_secret(path: Path) -> str:
    """Return the secret saved in `path`; the first start creates it, readable only by its owner."""
    if path.exists():
        return path.read_text("ascii")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(secrets.token_urlsafe(48), "ascii")
    try:
        os.link(fresh, path)  # atomic: if several processes start together, one wins
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text("ascii")
