"""Keys that were made with other keys: they never do more than those, and end with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.forward_auth.middleware import Middleware

from .support.apps import client_of, service_of, statements
from .support.concurrency import at_once, behind_the_guard, statuses
from .support.databases import COUNTERS
from .support.keys import left, limit, me, path_of, quota, verify
from .support.mail import mails_of
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.tokens import ask

Travel = Callable[..., None]
Key = dict[str, Any]

MANAGES = ["keys:read", "keys:write"]


def child_of(owner: Person, key: Key, **wanted: Any) -> Key:
    """A key that was made with this one, and by default may make others."""
    wanted = {"name": "child", "scopes": MANAGES, **wanted}
    minted = owner.with_key(key).post("/v1/api-keys", wanted)
    assert minted.status_code == 201, minted.text
    return minted.json


def line_of(owner: Person, length: int = 3, **wanted: Any) -> list[Key]:
    """So many keys, each made with the one before."""
    line = [owner.new_key(scopes=MANAGES, **wanted)]
    while len(line) < length:
        line.append(child_of(owner, line[-1], **wanted))
    return line


def of(owner: Person, *keys: Key) -> list[str]:
    return [owner.get(path_of(key)).json["status"] for key in keys]


# --- which key made which ---


def test_a_key_names_the_key_that_made_it(alice: Person, root: Person) -> None:
    first, second, third = line_of(alice)
    assert [each["parent_id"] for each in (first, second, third)] == [
        None,
        first["id"],
        second["id"],
    ]
    assert root.get(path_of(third)).json["parent_id"] == second["id"]
    listed = {each["id"]: each["parent_id"] for each in alice.get("/v1/api-keys").json["items"]}
    assert listed == {first["id"]: None, second["id"]: first["id"], third["id"]: second["id"]}
    rotated = alice.post(f"{path_of(second)}/rotate").json
    assert rotated["parent_id"] == first["id"]
    for sent in ({"parent_id": first["id"]}, {"locked_by_admin": []}):
        refused = alice.patch(path_of(third), sent)
        assert_problem(refused, 422, "validation_error", f"json.{next(iter(sent))}")


# --- what ends with a key ---


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("revoked", lambda owner, key: owner.post(f"{path_of(key)}/revoke")),
        ("disabled", lambda owner, key: owner.patch(path_of(key), {"disabled": True})),
        ("expired", None),
    ],
)
def test_a_child_is_refused_at_every_door_while_an_ancestor_is_not_active(
    app: Flask,
    client: FlaskClient,
    root: Person,
    alice: Person,
    travel: Travel,
    code: str,
    end: Callable[[Person, Key], TestResponse] | None,
) -> None:
    first, second, third = line_of(alice)
    expiring = None if end else {"expires_at": alice.new_key(expires_in_days=1)["expires_at"]}
    passed = [me(client, each).status_code for each in (second, third)]
    assert passed == [200, 200]
    if end:
        assert end(alice, first).status_code == 200
    else:
        assert alice.patch(path_of(first), expiring).status_code == 200
        assert verify(root, third["key"])["expires_at"] == expiring["expires_at"]
        travel(days=2)
        root, alice = root.again(), alice.again()
    guarded = client_of_guard(app)
    for each in (second, third):
        assert_problem(me(client, each), 401, "invalid_credentials")
        assert verify(root, each["key"])["code"] == code
        explained = alice.post(f"{path_of(each)}/explain").json
        assert explained["code"] == code
        assert {"code": code, "passed": False} in explained["checks"]
        assert ask(root, each["key"]) == {"active": False}
        asked = client.get("/v1/verify", headers=by_key(each["key"]))
        assert (asked.status_code, asked.headers["X-Auth-Code"]) == (401, "invalid_credentials")
        assert guarded.get("/", headers=by_key(each["key"])).status_code == 401
    assert of(alice, second, third) == ["active", "active"]
    if code == "disabled":
        alice.patch(path_of(first), {"disabled": False})
        assert me(client, third).status_code == 200


def client_of_guard(app: Flask) -> FlaskClient:
    """A client of another application behind the guard of the app's service."""
    other = Flask("other")
    other.add_url_rule("/", view_func=lambda: "in")
    other.wsgi_app = Middleware(other.wsgi_app, service_of(app))  # type: ignore[method-assign]
    return other.test_client()


def test_a_child_may_do_no_more_than_its_ancestors_may_now(
    root: Person, alice: Person, client: FlaskClient
) -> None:
    scopes = [*MANAGES, "a:*", "b:read"]
    first = alice.new_key(scopes=scopes)
    second = child_of(alice, first, scopes=scopes)
    third = child_of(alice, second, scopes=["a:read", "a:write", "b:read"])
    assert verify(root, third["key"], scopes=["a:write", "b:read"])["valid"] is True
    alice.patch(path_of(first), {"scopes": ["a:read", *MANAGES]})
    told = verify(root, third["key"])
    assert (told["valid"], told["scopes"]) == (True, ["a:read"])
    assert ask(root, third["key"])["scope"] == "a:read"
    for asked in (["a:write"], ["b:read"]):
        assert verify(root, third["key"], scopes=asked)["code"] == "insufficient_scope"
        explained = alice.post(f"{path_of(third)}/explain", {"scopes": asked}).json
        assert explained["code"] == "insufficient_scope"
    assert verify(root, second["key"], scopes=["a:read"])["valid"] is True
    alice.patch(path_of(first), {"allowed_ips": ["192.0.2.0/24"]})
    alice.patch(path_of(second), {"allowed_ips": ["192.0.2.8/29", "198.51.100.0/24"]})
    for ip, code in [
        ("192.0.2.9", "valid"),
        ("192.0.2.1", "ip_not_allowed"),
        ("198.51.100.1", "ip_not_allowed"),
        (None, "ip_not_allowed"),
    ]:
        asked = {"ip": ip} if ip else {}
        assert verify(root, third["key"], **asked)["code"] == code
        assert alice.post(f"{path_of(third)}/explain", asked).json["code"] == code
    assert_problem(me(client, third), 403, "ip_not_allowed")


def test_what_a_child_changes_stays_within_its_ancestors_too(alice: Person) -> None:
    first, second = line_of(alice, 2)
    other = alice.new_key()
    alice.patch(path_of(first), {"rate_limit": limit(5)})
    manager = alice.with_key(second)
    assert_problem(manager.post("/v1/api-keys", {"name": "x"}), 403, "insufficient_scope")
    assert_problem(manager.post(f"{path_of(other)}/rotate"), 403, "insufficient_scope")
    minted = manager.post("/v1/api-keys", {"name": "x", "rate_limit": limit(5)})
    assert minted.status_code == 201


# --- revoking and deleting ---


def test_revoking_a_key_cascades_to_its_children_only_if_asked(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    first, second, third = line_of(alice)
    sibling, stranger = child_of(alice, first), alice.new_key()
    alice.post(f"{path_of(sibling)}/revoke")
    revoked_at = alice.get(path_of(sibling)).json["updated_at"]
    for body in ({"cascade": "yes"}, {"cascade": 1}, {"all": True}):
        refused = alice.post(f"{path_of(first)}/revoke", body)
        assert_problem(refused, 422, "validation_error", f"json.{next(iter(body))}")
    assert alice.post(f"{path_of(second)}/revoke", {"cascade": False}).status_code == 200
    assert of(alice, first, second, third) == ["active", "revoked", "active"]
    answer = alice.post(f"{path_of(first)}/revoke", {"cascade": True})
    assert answer.status_code == 200
    assert answer.json["status"] == "revoked"
    assert of(alice, first, second, third) == ["revoked"] * 3
    assert alice.get(path_of(sibling)).json["updated_at"] == revoked_at
    assert me(client, stranger).status_code == 200
    again = alice.post(f"{path_of(first)}/revoke", {"cascade": True})
    assert again.json == answer.json
    events = root.get("/v1/audit-events?action=key.revoke").json["items"]
    assert Counter(each["target_id"] for each in events) == Counter(
        each["id"] for each in (first, second, third, sibling)
    )


@pytest.mark.parametrize("call", ["/v1/api-keys/revoke", "/v1/auth/revoke"])
def test_whoever_revokes_a_leaked_key_revokes_the_children_that_its_thief_made(
    make_app: Callable[..., Flask], logged: Callable[[], list[str]], call: str
) -> None:
    app = make_app(mail_url="memory:")
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    first, second, third = line_of(alice)
    stranger = alice.new_key()
    alice.patch(path_of(third), {"name": "hidden & deep"})
    alice.post(f"{path_of(second)}/revoke")  # the one below lives on, if only by name
    sent = {"json": {"key": first["key"]}} if "keys" in call else {"data": {"token": first["key"]}}
    assert client.post(call, **sent).status_code in {200, 204}
    assert of(alice, first, second, third, stranger) == ["revoked"] * 3 + ["active"]
    [message] = [each for each in mails_of(client) if "reported" in each["Subject"]]
    for kind, name in (("plain", "hidden & deep"), ("html", "hidden &amp; deep")):
        part = message.get_body((kind,))
        assert f"{name} ({third['hint']})" in part.get_content()
        assert second["hint"] not in part.get_content()
    [line] = [each for each in logged() if '"msg":"key.leaked"' in each]
    assert f'"children":["{third["id"]}"]' in line
    client.post(call, **sent)
    assert len([each for each in mails_of(client) if "reported" in each["Subject"]]) == 1


def test_the_mail_about_a_leaked_key_names_at_most_twenty_children(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(mail_url="memory:"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    first = alice.new_key(scopes=MANAGES)
    for number in range(23):
        child_of(alice, first, name=f"number {number}!")
    client.post("/v1/api-keys/revoke", json={"key": first["key"]})
    text = mails_of(client)[-1].get_body(("plain",)).get_content()
    assert "- number 19! (bt_" in text
    assert "number 20!" not in text
    assert "- and 3 more\n" in text


def test_the_mail_about_a_leaked_key_leaves_out_names_that_look_like_links(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(mail_url="memory:"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    first = alice.new_key(scopes=MANAGES)
    child = child_of(alice, first, name="Verify at https://evil.example")
    client.post("/v1/api-keys/revoke", json={"key": first["key"]})
    for kind in ("plain", "html"):
        text = mails_of(client)[-1].get_body((kind,)).get_content()
        assert f"({child['hint']})" in text
        assert "evil" not in text


def test_a_key_with_living_children_is_deleted_only_with_them(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    first, second, third = line_of(alice)
    dead = child_of(alice, first)
    alice.post(f"{path_of(dead)}/revoke")
    for state in ({"name": "x"}, {"disabled": True}):
        alice.patch(path_of(second), state)
        assert_problem(alice.delete(path_of(first)), 409, "conflict")
        assert_problem(alice.delete(f"{path_of(first)}?cascade=false"), 409, "conflict")
    alice.post(f"{path_of(first)}/revoke")
    assert_problem(alice.delete(path_of(first)), 409, "conflict")  # they would be free again
    for query in ("cascade=1", "cascade=True", "cascade=", "all=true"):
        refused = alice.delete(f"{path_of(first)}?{query}")
        assert_problem(refused, 422, "validation_error", f"query.{query.partition('=')[0]}")
    assert alice.delete(f"{path_of(first)}?cascade=true").status_code == 204
    assert [alice.get(path_of(each)).status_code for each in (first, second, third)] == [404] * 3
    kept = alice.get(path_of(dead)).json
    assert (kept["status"], kept["parent_id"]) == ("revoked", None)
    assert verify(root, third["key"])["code"] == "not_found"
    events = root.get("/v1/audit-events?action=key.delete").json["items"]
    assert {each["target_id"] for each in events} == {each["id"] for each in (first, second, third)}


def test_a_key_cascades_to_its_own_children_but_not_to_wider_ones_or_itself(
    client: FlaskClient, alice: Person
) -> None:
    first, second, third = line_of(alice)
    assert_problem(
        alice.with_key(third).delete(f"{path_of(second)}?cascade=true"), 403, "session_required"
    )
    alice.patch(path_of(third), {"scopes": [*MANAGES, "a:b"]})
    manager = alice.with_key(first)
    for act in (
        partial(manager.post, f"{path_of(second)}/revoke", {"cascade": True}),
        partial(manager.delete, f"{path_of(second)}?cascade=true"),
    ):
        assert_problem(act(), 403, "insufficient_scope")
    assert of(alice, first, second, third) == ["active"] * 3
    alice.patch(path_of(third), {"scopes": []})
    assert manager.post(f"{path_of(first)}/revoke", {"cascade": True}).status_code == 200
    assert of(alice, first, second, third) == ["revoked"] * 3


def test_nothing_is_revoked_or_deleted_with_a_missing_key(alice: Person, bob: Person) -> None:
    key = line_of(bob, 2)[0]
    for path in (path_of(key), "/v1/api-keys/0192d3a4-0000-7d8e-9f01-23456789abcd"):
        assert_problem(alice.post(f"{path}/revoke", {"cascade": True}), 404, "not_found")
        assert_problem(alice.delete(f"{path}?cascade=true"), 404, "not_found")
    assert of(bob, key) == ["active"]


def test_deleting_a_user_deletes_lines_of_keys(root: Person, alice: Person) -> None:
    third = line_of(alice)[-1]
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    assert verify(root, third["key"])["code"] == "not_found"


def test_a_key_whose_children_are_used_is_not_disabled_as_unused(
    make_app: Callable[..., Flask], travel: Travel
) -> None:
    app = make_app(disable_keys_unused_days=90)
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    first, second, third = line_of(alice)
    alone = line_of(alice, 2)
    travel(days=89)
    assert me(client, third).status_code == 200
    service_of(app).flush()
    travel(days=3)
    assert app.test_cli_runner().invoke(args=["prune"]).exit_code == 0
    alice = sign_in(client, "alice")
    assert of(alice, first, second, third) == ["active"] * 3
    assert of(alice, *alone) == ["disabled"] * 2


# --- limits and quotas ---


@pytest.fixture(params=COUNTERS)
def limited(request: pytest.FixtureRequest, make_app: Callable[..., Flask]) -> Flask:
    """An app that counts limits in memory, and again in Redis."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    app = make_app(redis_url=url)
    for name, role in (("alice", "user"), ("root", "admin")):
        add_user(client_of(app), name, role=role)
    return app


def test_a_use_of_a_child_counts_for_its_ancestors_limits(limited: Flask) -> None:
    client = client_of(limited)
    root, alice = sign_in(client, "root"), sign_in(client, "alice")
    first = alice.new_key(scopes=MANAGES, rate_limit=limit(6))
    second, third = (child_of(alice, first, rate_limit=limit(4)) for _ in range(2))  # uses 2 of 6
    assert [verify(root, second["key"])["code"] for _ in range(3)] == ["valid"] * 3
    told = verify(root, third["key"])
    assert (told["code"], told["rate_limit"]["limit"]) == ("valid", 6)
    assert told["rate_limit"]["remaining"] == 0  # the ancestor's is what counts next
    refused = me(client, third)
    assert_problem(refused, 429, "rate_limited")
    assert refused.headers["RateLimit-Policy"] == '"key";q=6;w=3600'
    assert 3600 < int(refused.headers["Retry-After"]) <= 4200
    for each in (first, second, third):
        explained = alice.post(f"{path_of(each)}/explain").json
        assert explained["code"] == verify(root, each["key"])["code"] == "rate_limited"
    # The refusals used up nothing: of the children's own limits, 4 each, that is left.
    alice.patch(path_of(first), {"rate_limit": None})
    assert verify(root, third["key"], cost=0)["rate_limit"]["remaining"] == 3
    assert [verify(root, second["key"])["code"] for _ in range(2)] == ["valid", "rate_limited"]


@pytest.mark.slow
def test_of_parallel_uses_of_siblings_exactly_as_many_pass_as_their_parent_may(
    limited: Flask,
) -> None:
    client = client_of(limited)
    alice = sign_in(client, "alice")
    first = alice.new_key(scopes=MANAGES, rate_limit=limit(24))
    own = [child_of(alice, first, scopes=[], rate_limit=limit(15)) for _ in range(4)]  # uses 4
    uses = [partial(me, client, key) for key in own * 16]
    answers = at_once(*uses)
    assert statuses(answers) == {200: 20, 429: 44}
    passed = Counter(number % 4 for number, each in enumerate(answers) if each.status_code == 200)
    alice.patch(path_of(first), {"rate_limit": None})
    for number, key in enumerate(own):
        told = alice.post(f"{path_of(key)}/explain").json
        assert told["rate_limit"]["remaining"] == 15 - passed[number], "a refusal used its limit"


def test_a_use_of_a_child_spends_its_ancestors_quotas_or_nothing(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    first = alice.new_key(scopes=MANAGES, quota=quota(20))
    second = child_of(alice, first, quota=quota(10))
    third = child_of(alice, second, quota=quota(5))
    assert [left(alice, each) for each in (first, second, third)] == [18, 9, 5]  # two were minted
    told = verify(root, third["key"], cost=3)
    assert (told["code"], told["quota"]) == ("valid", {"remaining": 2})
    assert [left(alice, each) for each in (first, second, third)] == [15, 6, 2]
    alice.patch(path_of(first), {"quota": {"remaining": 1}})
    refused = verify(root, third["key"], cost=2)
    assert (refused["code"], refused["quota"]) == ("usage_exceeded", {"remaining": 1})
    explained = verify(root, third["key"], cost=2, explain=True)
    assert (explained["code"], explained["quota"]) == ("usage_exceeded", {"remaining": 1})
    assert [left(alice, each) for each in (first, second, third)] == [1, 6, 2]
    assert me(client, third).status_code == 200
    assert_problem(me(client, third), 429, "usage_exceeded")
    assert [left(alice, each) for each in (first, second, third)] == [0, 5, 1]


def test_a_child_learns_when_the_last_of_its_quotas_is_refilled(
    client: FlaskClient, alice: Person
) -> None:
    first = alice.new_key(scopes=MANAGES, quota=quota(1, 1, "daily"))
    second = child_of(alice, first, quota=quota(0, 1, "daily"))
    daily = int(me(client, second).headers["Retry-After"])
    assert 0 < daily <= 86_400
    alice.patch(path_of(first), {"quota": quota(0, 5, "monthly")})
    monthly = int(me(client, second).headers["Retry-After"])
    assert daily - 60 < monthly <= 31 * 86_400
    alice.patch(path_of(first), {"quota": quota(1)})
    assert abs(int(me(client, second).headers["Retry-After"]) - daily) < 60


def test_a_pending_secret_of_a_child_is_activated_only_with_all_quotas(
    client: FlaskClient, alice: Person
) -> None:
    first = alice.new_key(scopes=MANAGES, quota=quota(1))
    second = child_of(alice, first, quota=quota(0))
    alice.patch(path_of(second), {"quota": {"remaining": 9}})
    rotated = alice.post(f"{path_of(second)}/rotate", {"grace_seconds": 0}).json
    assert_problem(me(client, rotated), 429, "usage_exceeded")
    assert alice.get(path_of(second)).json["rotation"]["state"] == "pending"
    assert left(alice, second) == 9
    alice.patch(path_of(first), {"quota": {"remaining": 1}})
    assert me(client, rotated).status_code == 200
    assert alice.get(path_of(second)).json["rotation"] is None
    assert [left(alice, each) for each in (first, second)] == [0, 8]


def test_quotas_of_a_line_are_exact_under_concurrent_uses(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    first = alice.new_key(scopes=MANAGES, quota=quota(30))
    one, other = (child_of(alice, first, quota=quota(18)) for _ in range(2))
    below = child_of(alice, one, scopes=[], quota=quota(12))
    assert [left(alice, each) for each in (first, one, other, below)] == [27, 17, 18, 12]
    keys = [first, one, other, below] * 16
    uses: list[Callable[[], Any]] = [partial(me, client, key) for key in keys]
    written_behind = [service_of(app).flush, service_of(app).flush] * 8
    answers = at_once(*uses, *written_behind)[: len(uses)]
    assert statuses(answers) == {200: 27, 429: 37}
    spent = [0] * 4
    for number, answer in enumerate(answers):
        spent[number % 4] += answer.status_code == 200
    assert [left(alice, each) for each in (first, one, other, below)] == [
        0,
        17 - spent[1] - spent[3],
        18 - spent[2],
        12 - spent[3],
    ]


def test_concurrent_uses_creations_and_cascades_of_one_line_succeed(
    client: FlaskClient, alice: Person
) -> None:
    lines = [line_of(alice) for _ in range(2)]
    for key in (key for line in lines for key in line):
        alice.patch(path_of(key), {"quota": quota(1000)})
    calls: list[Callable[[], TestResponse]] = []
    for first, second, third in lines:
        minted = {"name": "late", "quota": quota(0)}
        for _ in range(8):
            calls += [partial(me, client, third), partial(me, client, second)]
            calls.append(partial(alice.with_key(second).post, "/v1/api-keys", minted))
        held = {"key": first["key"]}
        for _ in range(2):
            calls.append(partial(alice.post, f"{path_of(first)}/revoke", {"cascade": True}))
            calls.append(partial(client.post, "/v1/api-keys/revoke", json=held))
            calls.append(partial(alice.with_key(third).post, f"{path_of(second)}/revoke", None))
            calls.append(partial(alice.patch, path_of(second), {"name": "new"}))
    answers = at_once(*calls)
    assert len(calls) == 64
    assert {answer.status_code for answer in answers} <= {200, 201, 204, 401, 409}
    kept = alice.get("/v1/api-keys?limit=100").json["items"]
    assert {each["status"] for each in kept} == {"revoked"}, "one was minted behind the cascade"


def test_concurrent_deletions_and_creations_leave_no_key_without_its_parent(
    client: FlaskClient, alice: Person
) -> None:
    parents = [alice.new_key(scopes=MANAGES) for _ in range(8)]
    calls: list[Callable[[], TestResponse]] = []
    for parent in parents:
        mint = partial(alice.with_key(parent).post, "/v1/api-keys", {"name": "late"})
        calls += [mint] * 4
        calls += [partial(alice.delete, path_of(parent))] * 2
        calls += [partial(alice.delete, f"{path_of(parent)}?cascade=true")] * 2
    answers = at_once(*calls)
    assert {answer.status_code for answer in answers} <= {201, 204, 401, 404, 409}
    kept = alice.get("/v1/api-keys?limit=100").json["items"]
    assert not [each for each in kept if each["name"] == "late" and each["parent_id"] is None]


def test_a_child_whose_ancestor_is_revoked_during_its_request_creates_no_key(
    app: Flask, alice: Person
) -> None:
    first, second = line_of(alice, 2)
    other = alice.new_key()
    for act in (
        partial(alice.with_key(second).post, "/v1/api-keys", {"name": "late"}),
        partial(alice.with_key(second).post, f"{path_of(other)}/rotate"),
    ):
        alice.patch(path_of(first), {"disabled": False})
        with behind_the_guard(app, partial(alice.patch, path_of(first), {"disabled": True})):
            assert_problem(act(), 401, "invalid_credentials")


# --- who pays ---


def test_only_a_child_pays_for_its_ancestors_and_with_one_statement(
    app: Flask, root: Person, alice: Person
) -> None:
    line = line_of(alice, 4)
    verify(root, line[0]["key"])
    for key, lookups in ((line[0], 0), (line[1], 1), (line[3], 1)):
        with statements(app) as ran:
            assert verify(root, key["key"])["valid"] is True
        assert len(ran) == 2 + lookups, ran  # the session, the key
        assert sum("RECURSIVE" in sql for sql in ran) == lookups


@pytest.mark.slow
def test_a_line_as_long_as_an_owner_may_make_it_is_verified(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(max_keys_per_user=40))
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    line = line_of(root, 40)
    assert verify(root, line[-1]["key"])["valid"] is True
    root.patch(path_of(line[0]), {"quota": quota(1)})
    assert [verify(root, line[-1]["key"])["code"] for _ in range(2)] == ["valid", "usage_exceeded"]
    assert root.post(f"{path_of(line[0])}/revoke", {"cascade": True}).status_code == 200
    assert set(of(root, *line)) == {"revoked"}
