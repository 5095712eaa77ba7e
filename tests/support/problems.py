"""Problem documents."""

from __future__ import annotations

from werkzeug.test import TestResponse


def assert_problem(response: TestResponse, status: int, code: str, *fields: str) -> None:
    """Check that the response is a problem document of this status, code and fields.

    Fields are written `json.email`.
    """
    assert (response.status_code, response.json.get("code")) == (status, code), response.json
    assert response.content_type == "application/problem+json"
    assert response.json["status"] == status
    assert response.json["request_id"] == response.headers["X-Request-ID"]
    found = {
        f"{place}.{name}"
        for place, names in response.json.get("errors", {}).items()
        for name in names
    }
    assert found == set(fields), response.json
