"""One's sessions as a list: which there are, from where, and ending one of them."""

from collections.abc import Callable

from flask.testing import FlaskClient

from .conftest import PASSWORD, Person, assert_problem, by_token, refresh, sign_in

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"


def test_sessions_are_listed_with_where_they_come_from(client: FlaskClient, alice: Person) -> None:
    login = {"username": "alice", "password": PASSWORD}
    client.post(
        "/v1/auth/login", json=login, headers={"User-Agent": FIREFOX + "\x9b\t" + "x" * 500}
    )
    newest, first = alice.get("/v1/auth/sessions").json["items"]
    assert set(first) == {"id", "created_at", "last_used_at", "ip", "user_agent", "current"}
    assert (first["ip"], first["current"], newest["current"]) == ("127.0.0.1", True, False)
    assert newest["user_agent"].startswith(FIREFOX + "x")
    assert len(newest["user_agent"]) == 200


def test_a_page_of_sessions_leads_to_the_next(client: FlaskClient, alice: Person) -> None:
    alice.again()
    alice.again()
    page = alice.get("/v1/auth/sessions?limit=2").json
    rest = alice.get(f"/v1/auth/sessions?limit=2&cursor={page['next']}").json
    assert [len(page["items"]), len(rest["items"]), rest["next"]] == [2, 1, None]


def test_a_refresh_is_a_use(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    [before] = alice.get("/v1/auth/sessions").json["items"]
    travel(minutes=5)
    answer = client.post(
        "/v1/auth/refresh",
        json={"refresh_token": alice.refresh_token},
        headers={"User-Agent": FIREFOX},
    )
    token = answer.json["access_token"]
    [after] = client.get("/v1/auth/sessions", headers=by_token(token)).json["items"]
    assert after["last_used_at"] > before["last_used_at"]
    assert (after["id"], after["user_agent"]) == (before["id"], FIREFOX)


def test_one_session_is_ended_and_only_that(client: FlaskClient, alice: Person) -> None:
    other = alice.again()
    [there] = [each for each in alice.get("/v1/auth/sessions").json["items"] if not each["current"]]
    assert alice.delete(f"/v1/auth/sessions/{there['id']}").status_code == 204
    assert_problem(other.get("/v1/auth/me"), 401, "invalid_credentials")
    assert refresh(client, other.refresh_token).status_code == 401
    assert alice.get("/v1/auth/me").status_code == 200
    assert_problem(alice.delete(f"/v1/auth/sessions/{there['id']}"), 404, "not_found")


def test_what_is_over_is_not_listed(alice: Person, travel: Callable[..., None]) -> None:
    travel(days=8)
    again = alice.again()
    [only] = again.get("/v1/auth/sessions").json["items"]
    assert only["current"]


def test_somebody_elses_session_is_not_found(alice: Person, bob: Person) -> None:
    [session] = bob.get("/v1/auth/sessions").json["items"]
    assert_problem(alice.delete(f"/v1/auth/sessions/{session['id']}"), 404, "not_found")
    assert bob.get("/v1/auth/me").status_code == 200


def test_an_administrator_ends_all_sessions_of_a_user(root: Person, alice: Person) -> None:
    other = alice.again()
    assert root.delete(f"/v1/users/{alice.id}/sessions").status_code == 204
    for ended in (alice, other):
        assert_problem(ended.get("/v1/auth/me"), 401, "invalid_credentials")
    assert sign_in(alice.client, "alice").get("/v1/auth/me").status_code == 200
    assert_problem(root.delete(f"/v1/users/{root.id[:-4]}0000/sessions"), 404, "not_found")


def test_a_key_ends_the_sessions_of_users_but_not_of_administrators(
    root: Person, alice: Person
) -> None:
    headers = {"X-API-Key": root.new_key(scopes=["users:write"])["key"]}
    answer = root.client.delete(f"/v1/users/{alice.id}/sessions", headers=headers)
    assert answer.status_code == 204
    refused = root.client.delete(f"/v1/users/{root.id}/sessions", headers=headers)
    assert_problem(refused, 403, "session_required")
