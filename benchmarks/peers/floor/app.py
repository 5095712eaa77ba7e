"""The floor: a bare Flask route that returns the JSON of the service's `me`, without any checks."""

from typing import Any

from flask import Flask

app = Flask(__name__)
app.json.sort_keys = False  # type: ignore[attr-defined]

ME: dict[str, Any] = {
    "id": "0192d3a4-7777-7d8e-9f01-23456789abcd",
    "username": "alice",
    "email": "alice@example.com",
    "pending_email": None,
    "role": "user",
    "kind": "person",
    "is_active": True,
    "mfa_enabled": False,
    "created_at": "2026-11-23T09:00:00.000000Z",
    "updated_at": "2026-11-23T09:00:00.000000Z",
    "last_login_at": None,
    "auth": {
        "method": "session",
        "scopes": None,
        "session_id": "0192d3a4-9999-7d8e-9f01-23456789abcd",
    },
}


@app.get("/me")
def me() -> dict[str, Any]:
    """The same JSON each time."""
    return ME
