"""Whether settings are safe to serve with. Skip it on a first reading."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from .settings import Settings, SettingsError

SECRET_BYTES = 32

# Secrets from well-known tutorials, and words found in placeholders.
EXAMPLE_SECRETS = frozenset(
    {
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    }
)
EXAMPLE_WORDS = ("change", "example", "secret", "insecure", "placeholder", "password", "testing")


def require_safe(settings: Settings) -> Settings:
    """Return these settings if they are safe to serve with; raise SettingsError otherwise."""
    problems = _unsafe(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _unsafe(settings: Settings) -> list[str]:
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
    """Return whether `host`, a name or an address, means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
