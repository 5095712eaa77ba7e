"""API keys of other systems, and `flask keys import`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from click.testing import Result
from flask import Flask

from .people import Person

# Texts as these systems make them, and what they keep of one.
DJANGO = "pxvV5qEU.A0yTgzp5xYmdRRhTtOBE5r3ZyzOJXmtz"
BETTER_AUTH = "kQbJfHfZVxYvTnJqRkGtPzLmWsCdXbNhAyUiOeFgRtSvBwQzKjHlMnPxCyDzEaTu"
PLAIN = "sk-live/+=~!#$%&'()*,;:<>?@[]^`{|}"


def sha256_hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_base64url(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def sha512_django(text: str) -> str:
    return f"sha512$${hashlib.sha512(text.encode()).hexdigest()}"


FORMS = {DJANGO: sha512_django, BETTER_AUTH: sha256_base64url, PLAIN: sha256_hex}


def line(text: str, **more: Any) -> dict[str, Any]:
    """A line that takes the key with this text over for alice."""
    form = FORMS.get(text, sha256_hex)
    return {"owner": "alice", "name": "taken over", "digest": form(text), **more}


def take_over(app: Flask, *lines: Any, options: Sequence[str] = ()) -> Result:
    """What `flask keys import -` does with these lines."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    runner = app.test_cli_runner()
    return runner.invoke(args=["keys", "import", *options, "-"], input="\n".join(texts))


def me(person: Person, text: str, header: str = "X-API-Key") -> Any:
    value = text if header == "X-API-Key" else f"Bearer {text}"
    return person.client.get("/v1/auth/me", headers={header: value})
