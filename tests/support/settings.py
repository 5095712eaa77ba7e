"""Settings of the service under test, and the environment of its processes."""

from __future__ import annotations

import os
import secrets

from backend.core.settings import Settings

OLD, NEW = "the-first-" * 5, "the-second-" * 5  # secret keys


def make_settings(**values: object) -> Settings:
    """Return settings for a test. Names are those of settings in lower case, values their text."""
    environ = {"ENVIRONMENT": "testing", "THREADS": "64"}
    environ |= {name.upper(): str(value) for name, value in values.items()}
    return Settings.load(environ, dotenv=None)


def process_environ(**values: object) -> dict[str, str]:
    """Return the environment of a production process, with settings as for `make_app`.

    None removes a setting.
    """
    values = {"secret_key": secrets.token_urlsafe(48), **values}
    given = {name.upper(): str(text) for name, text in values.items() if text is not None}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | given
