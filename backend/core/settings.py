"""The one typed list of settings, and the checks for unsafe ones.

A setting comes from the environment, otherwise from `.env`, otherwise from
`config/<ENVIRONMENT>.env`, otherwise from its default. An empty value counts as not set. Only this
module reads `os.environ`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values

from .database_url import UnknownParameter, parse_database_url
from .paths import DATA, ROOT
from .redis_url import REDIS_FORM, parse_redis_url

ENVIRONMENTS = frozenset({"production", "development", "testing"})
SECRET_BYTES = 32

# Secrets from well-known tutorials, and words found in placeholders.
EXAMPLE_SECRETS = frozenset(
    {
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    }
)
EXAMPLE_WORDS = ("change", "example", "secret", "insecure", "placeholder", "password", "testing")


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one sentence per reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


# A host name (RFC 1123 section 2.1; some closed networks use underscores), or an IPv4 address.
_LABEL = r"\w([\w-]{0,61}\w)?"
_HOST_NAME = rf"{_LABEL}(\.{_LABEL})*"

_VISIBLE = "[!-~]+"  # ASCII without blanks, which is safe in a header

# An e-mail address to send from.
_ADDRESS = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+"


class Limit(NamedTuple):
    """At most `most` uses in `seconds`."""

    most: int
    seconds: int


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# Parsers from text to value. Each raises ValueError for a text that does not have its form.
def _environment(text: str) -> str:
    """Accept one of the three, or a name that has a file: a typo must not start the service."""
    is_known = text in ENVIRONMENTS or _environment_file(text).is_file()
    if not re.fullmatch("[a-z]+", text) or not is_known:
        raise ValueError
    return text


def _environment_file(name: str) -> Path:
    return DATA / "config" / f"{name}.env"


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return parse


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError
    return text.lower() in {"true", "1"}


def _limit(text: str, longest: int = 31_536_000) -> Limit:
    most, _, seconds = text.partition("/")
    return Limit(_whole(1, 1_000_000)(most), _whole(1, longest)(seconds))


def _rate(text: str) -> Limit | None:
    return _limit(text, 86_400) if text else None


def _match(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return parse


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _host(text: str) -> str:
    """Accept a host name or an IP address; an IPv6 address may be in brackets."""
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in address:
        ipaddress.IPv6Address(address)
    elif address != text or len(text) > 253 or not re.fullmatch(_HOST_NAME, text):
        raise ValueError
    return text


def _authority(text: str) -> str:
    """Accept a host with an optional port (RFC 3986 section 3.2), without user and password."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?", text)
    if not match:
        raise ValueError
    _host(match[1])
    _whole(1, 65535)(match[2] or "80")
    return text


def _listen_address(text: str) -> str:
    return text if text == "*" else _host(text)


def _hosts(text: str) -> tuple[str, ...]:
    if not text.isascii():  # Host headers are ASCII: a Unicode name would never match
        raise ValueError
    return tuple(map(_authority, _list(text)))


def _origins(text: str) -> tuple[str, ...]:
    """Accept origins as browsers send them (RFC 6454 section 6.2): lower case, without a path."""
    origins = _list(text)
    for origin in origins:
        scheme, _, authority = origin.partition("://")
        if scheme not in {"http", "https"} or _authority(authority) != authority.lower():
            raise ValueError
    return origins


def _roles(text: str) -> tuple[str, ...]:
    roles = _list(text)
    if not set(roles) <= {"user", "admin"}:
        raise ValueError
    return roles


def _networks(text: str) -> tuple[Network, ...]:
    parts = _list(text)
    for part in parts:
        if not re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", part) or part.endswith("/"):
            raise ValueError  # a mask such as 255.0.0.0 is easily misread
    return tuple(map(ipaddress.ip_network, parts))


def _web_address(text: str) -> str:
    match = re.fullmatch(r"https?://([^/?#\s]+)(/[A-Za-z0-9._~%-]+)*/*", text)
    if not match:
        raise ValueError
    _authority(match[1])
    return text.rstrip("/")


def _service_name(text: str) -> str:
    # In the label of an authenticator app, a colon ends the issuer.
    if not (text.isprintable() and len(text) <= 64) or set(text) & set(":<>"):
        raise ValueError
    return text


def _page_address(text: str) -> str:
    if re.search(r"[\s#]", text):
        raise ValueError
    _web_address(text.partition("?")[0])
    return text


def _mail_url(text: str) -> str:
    server = r"([^\s:/?#]+:[^\s/?#]+@)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/?"
    known = rf"|console:|memory:|smtps://{server}|smtp://{server}(\?starttls=never)?"
    if not re.fullmatch(known, text):
        raise ValueError
    _ = urlsplit(text).port
    return text


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
        _environment,
        "production",
        "production, development, testing, or the NAME of a file config/NAME.env",
    )
    host: str = _setting(_listen_address, "127.0.0.1", "address to listen on; * for all")
    port: int = _setting(_whole(1, 65535), "8000", "1 to 65535")
    public_url: str = _setting(_web_address, "http://127.0.0.1:{PORT}", "http(s)://host[/prefix]")
    password_url: str = _setting(
        _page_address,
        "{PUBLIC_URL}/password",
        "address of the page that mail links open, without #",
    )
    service_name: str = _setting(
        _service_name,
        "Backend",
        "1 to 64 characters without : < >; shown in e-mails, pages, authenticator apps",
    )
    allow_http: bool = _setting(_flag, "false", "true or false")
    threads: int = _setting(_whole(1, 1000), "8", "1 to 1000 per process")
    workers: int = _setting(_whole(1, 1000), "1", "1 to 1000 processes (gunicorn)")
    database_url: str = _setting(
        parse_database_url,
        "sqlite:///instance/backend.db",
        "sqlite:///path or postgresql://user:password@host/name",
        file=True,
    )
    database_pool_size: int = _setting(_whole(1, 1000), "{THREADS}", "1 to 1000 connections")
    database_timeout: int = _setting(_whole(1, 60), "3", "1 to 60 seconds")
    database_prepared_statements: bool = _setting(
        _flag, "true", "true or false; false behind PgBouncer"
    )
    redis_url: str = _setting(parse_redis_url, "", REDIS_FORM, file=True)
    secret_key: str = _setting(str, "", "at least 32 random bytes", file=True)
    secret_key_fallbacks: tuple[str, ...] = _setting(
        _list, "", "earlier secrets, separated by commas", file=True
    )
    admin_username: str = _setting(
        _match("[A-Za-z0-9._-]{3,64}"), "admin", "3 to 64 letters, digits, . _ -"
    )
    admin_email: str = _setting(_match(r"[^@\s]+@[^@\s]+"), "admin@example.com", "e-mail address")
    admin_password: str = _setting(str, "", "password of the first administrator", file=True)
    cors_origins: tuple[str, ...] = _setting(
        _origins, "", "exact origins, separated by commas; not *"
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        _networks, "", "addresses or CIDRs, separated by commas"
    )
    trusted_hosts: tuple[str, ...] = _setting(
        _hosts, "", "ASCII host names, separated by commas; empty: any"
    )
    # RSA passes here, so that `signing_keys` can explain why it is refused.
    jwt_algorithm: str = _setting(
        _match("HS256|EdDSA|ES256|[RP]S(256|384|512)"), "HS256", "HS256, EdDSA, ES256"
    )
    jwt_private_key_file: str = _setting(
        str, "", "path of a file of PEM keys; the first signs, all verify"
    )
    jwt_issuer: str = _setting(str, "{PUBLIC_URL}", "text")
    jwt_audience: str = _setting(str, "{PUBLIC_URL}", "text")
    jwt_access_token_expire_minutes: int = _setting(_whole(1, 1440), "10", "1 to 1440 minutes")
    jwt_refresh_token_expire_days: int = _setting(
        _whole(1, 3650), "7", "1 to 3650 days without use"
    )
    session_absolute_days: int = _setting(_whole(1, 3650), "30", "1 to 3650 days")
    refresh_grace_seconds: int = _setting(_whole(0, 300), "10", "0 to 300 seconds")
    max_sessions_per_user: int = _setting(_whole(1, 10_000), "20", "1 to 10000")
    username_hold_days: int = _setting(_whole(0, 36_500), "90", "0 to 36500; 0: not held")
    password_min_length: int = _setting(_whole(8, 1024), "15", "8 to 1024 characters")
    bcrypt_rounds: int = _setting(_whole(4, 18), "12", "4 to 18; at least 10 in production")
    login_attempts: Limit = _setting(_limit, "10/300", "failures/seconds per account and address")  # noqa: RUF009
    login_attempts_per_address: Limit = _setting(_limit, "100/300", "failures/seconds per address")  # noqa: RUF009
    login_attempts_per_account: Limit = _setting(  # noqa: RUF009
        _limit, "100/86400", "failures/seconds per account"
    )
    mfa_required_roles: tuple[str, ...] = _setting(_roles, "", "user, admin or user,admin")
    api_key_prefix: str = _setting(
        _match("[a-z][a-z0-9]{1,15}"), "bt", "2 to 16 characters a-z and 0-9, the first a letter"
    )
    max_keys_per_user: int = _setting(_whole(1, 1_000_000), "100", "1 to 1000000")
    rate_limit_default: Limit | None = _setting(_rate, "", "uses/seconds for keys without a limit")  # noqa: RUF009
    rate_limit_max: Limit | None = _setting(_rate, "", "uses/seconds, the maximum for any key")  # noqa: RUF009
    disable_keys_unused_days: int = _setting(_whole(0, 36_500), "0", "0 to 36500; 0: never")
    audit_retention_days: int = _setting(_whole(0, 36_500), "365", "0 to 36500; 0: keep forever")
    mail_url: str = _setting(
        _mail_url, "", "smtp(s)://[user:password@]host[:port], console:, memory:", file=True
    )
    mail_from: str = _setting(
        _match(f"|{_ADDRESS}|[^<>\\x00-\\x1f]*<{_ADDRESS}>"), "", "address, or Name <address>"
    )
    log_level: str = _setting(
        _match("DEBUG|INFO|WARNING|ERROR"), "INFO", "DEBUG, INFO, WARNING, ERROR"
    )
    log_format: str = _setting(_match("json|text"), "json", "json or text")
    log_file: str = _setting(str, "", "path of a file for JSON lines, in addition to the console")
    metrics_enabled: bool = _setting(_flag, "false", "true or false")
    metrics_token: str = _setting(
        _match(f"|{_VISIBLE}"), "", "bearer token for reading metrics; empty: anyone may", file=True
    )
    docs_enabled: bool = _setting(_flag, "false", "true or false")
    flask_debug: bool = _setting(_flag, "false", "true or false; refused in production")

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
                given = _over(_clean(dotenv_values(_environment_file(environment))), given)
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
        """True in every environment except development and testing."""
        return self.environment not in {"development", "testing"}

    @property
    def database_connections(self) -> int:
        """The maximum for a process: one thread stays free for requests that need no connection."""
        return max(1, min(self.database_pool_size, self.threads - 1))

    def check(self) -> Settings:
        """Return these settings if they are safe to serve with; raise SettingsError otherwise."""
        problems = unsafe(self)
        if problems:
            raise SettingsError(problems)
        return self


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


def unsafe(settings: Settings) -> list[str]:
    """Return a sentence for each reason not to use these settings; lenient in development."""
    if not settings.strict:
        return [] if settings.secret_key else ["SECRET_KEY is not set."]
    secret_keys = (settings.secret_key, *settings.secret_key_fallbacks)
    make_one = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(48))"'
    rules = [
        (not settings.secret_key, f"SECRET_KEY is not set; {make_one}"),
        (
            any(0 < len(each.encode()) < SECRET_BYTES for each in secret_keys),
            f"SECRET_KEY or one of its fallbacks is shorter than {SECRET_BYTES} bytes; {make_one}",
        ),
        (
            any(map(_is_example, secret_keys)),
            f"SECRET_KEY or one of its fallbacks is a known example value; {make_one}",
        ),
        (settings.flask_debug, "FLASK_DEBUG is on; unset it."),
        (
            settings.bcrypt_rounds < 10,
            "BCRYPT_ROUNDS is below 10; leave it at 12 unless logins are too slow.",
        ),
        (
            not (settings.public_url.startswith("https:") or settings.allow_http)
            and not is_loopback(urlsplit(settings.public_url).hostname or ""),
            "PUBLIC_URL is http; serve over https, or set ALLOW_HTTP=true on a closed network.",
        ),
        (
            _sends_password_in_clear(settings.mail_url),
            "MAIL_URL would send its password unencrypted; leave out ?starttls=never.",
        ),
    ]
    return [sentence for broken, sentence in rules if broken]


def _is_example(secret: str) -> bool:
    repetitive = 0 < len(set(secret)) < 8
    placeholder = any(word in secret.lower() for word in EXAMPLE_WORDS)
    return repetitive or placeholder or secret in EXAMPLE_SECRETS


def _sends_password_in_clear(mail_url: str) -> bool:
    parts = urlsplit(mail_url)
    return bool(parts.password and parts.query) and not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """True if `host`, a name or an address, means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
