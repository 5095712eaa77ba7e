"""Rotating a key: a new secret, whose first use starts the grace period of the old one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of, service_of, statements, url_of
from .support.concurrency import at_once, behind_the_guard, statuses
from .support.keys import flush, path_of, verify
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.settings import NEW, OLD

Travel = Callable[..., None]

DAY = 86_400


def rotate(person: Person, key: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The answer to rotating; its text is `["key"]`."""
    answer = person.post(f"{path_of(key)}/rotate", wanted)
    assert answer.status_code == 200, answer.json
    return answer.json


def me(client: FlaskClient, key: dict[str, Any], **kwargs: Any) -> TestResponse:
    return client.get("/v1/auth/me", headers=by_key(key["key"]), **kwargs)


def is_good(client: FlaskClient, key: dict[str, Any]) -> bool:
    """Whether the secret is accepted. If so, it has been used."""
    answer = me(client, key)
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


def state(person: Person, key: dict[str, Any]) -> str | None:
    """The state of the key's rotation; None if there is none."""
    rotation = person.get(path_of(key)).json["rotation"]
    return rotation and rotation["state"]


def secrets_of(app: Flask) -> int:
    """How many secrets are kept of all keys."""
    database = service_of(app).database
    with service_of(app).active():
        [count] = database.execute_sql("SELECT COUNT(*) FROM api_key_secrets").fetchone()
        database.close()
    return count


# --- the two phases ---


def test_a_new_secret_waits_for_its_first_use_and_then_the_old_one_ends(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    old = alice.new_key(scopes=["a:b"])
    assert old["rotation"] is None
    travel(seconds=5)
    new = rotate(alice, old, grace_seconds=600)
    assert new["key"] != old["key"]
    pending = new.pop("rotation")
    assert pending == {
        "state": "pending",
        "hint": f"bt_...{new['key'][-4:]}",
        "created_at": pending["created_at"],
        "grace_seconds": 600,
        "old_expires_at": None,
    }
    same = {name: new[name] for name in new if name not in {"key", "updated_at"}}
    assert same == {name: old[name] for name in same}, "the old hint too"
    assert min(new["updated_at"], pending["created_at"]) > old["updated_at"]

    travel(days=3)  # nothing ends before the first use
    alice = alice.again()
    assert is_good(client, old)
    assert state(alice, old) == "pending"
    assert is_good(client, new)
    kept = alice.get(path_of(old)).json
    grace = kept["rotation"]
    assert grace.pop("old_expires_at") > kept["updated_at"]
    assert grace == {**{name: pending[name] for name in grace}, "state": "grace"}
    assert (kept["hint"], kept["updated_at"]) == (old["hint"], new["updated_at"])

    travel(seconds=590)
    assert is_good(client, old)
    assert is_good(client, new)
    travel(seconds=11)
    assert not is_good(client, old)
    assert is_good(client, new)
    kept = alice.get(path_of(old)).json
    assert (kept["rotation"], kept["hint"]) == (None, pending["hint"])


def test_the_default_grace_is_a_day(client: FlaskClient, alice: Person, travel: Travel) -> None:
    old = alice.new_key()
    answer = client.post(f"{path_of(old)}/rotate", headers=alice.headers)
    assert answer.json["rotation"]["grace_seconds"] == DAY
    assert is_good(client, answer.json)
    travel(seconds=DAY - 5)
    assert is_good(client, old)
    travel(seconds=6)
    assert not is_good(client, old)


def test_without_grace_the_old_secret_ends_with_the_first_use(
    client: FlaskClient, alice: Person
) -> None:
    old = alice.new_key()
    new = rotate(alice, old, grace_seconds=0)
    assert is_good(client, old)
    assert is_good(client, new)
    assert not is_good(client, old)
    assert state(alice, old) is None
    assert alice.get(path_of(old)).json["hint"] == new["rotation"]["hint"]


@pytest.mark.parametrize("wanted", [-1, 604_801, 10**30, 1.0, "60", True, None])
def test_invalid_grace_is_refused(alice: Person, wanted: Any) -> None:
    key = alice.new_key()
    refused = alice.post(f"{path_of(key)}/rotate", {"grace_seconds": wanted})
    assert_problem(refused, 422, "validation_error", "json.grace_seconds")
    assert state(alice, key) is None


def test_denials_and_reads_leave_the_new_secret_pending(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(scopes=["a:b"], allowed_ips=["192.0.2.0/24"], expires_in_days=1)
    path, ip = path_of(key), "192.0.2.1"
    text = rotate(alice, key)["key"]
    change = partial(alice.patch, path)

    def seen(**asked: Any) -> str:
        code = verify(root, text, **{"ip": ip, **asked})["code"]
        assert state(alice, key) == "pending", code
        return code

    assert seen(ip="198.51.100.1") == "ip_not_allowed"
    assert seen(scopes=["a:c"]) == "insufficient_scope"
    assert seen(cost=0) == seen(explain=True) == "valid"
    assert alice.post(f"{path}/explain", {"ip": ip}).json["code"] == "valid"
    assert client.get("/v1/auth/me", headers=by_key(text)).status_code == 403
    change({"quota": {"remaining": 4}})
    assert seen(cost=5) == "usage_exceeded"
    change({"quota": None, "rate_limit": {"limit": 1, "window_seconds": 3600}})
    assert verify(root, key["key"], ip=ip)["valid"]
    assert seen() == "rate_limited"
    change({"rate_limit": None, "disabled": True})
    assert seen() == "disabled"
    change({"disabled": False})
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    assert verify(root, text, ip=ip)["code"] == "owner_inactive"
    root.patch(f"/v1/users/{alice.id}", {"is_active": True})
    alice = alice.again()
    travel(days=1, seconds=1)
    root, alice = root.again(), alice.again()
    assert seen() == "expired"
    alice.patch(path, {"expires_at": None})
    assert verify(root, text, ip=ip)["valid"]
    assert state(alice, key) == "grace"


def test_routes_closed_to_keys_activate_nothing(alice: Person) -> None:
    key = alice.new_key()
    new = alice.with_key(rotate(alice, key))
    assert_problem(new.post("/v1/auth/logout"), 403, "session_required")
    assert state(alice, key) == "pending"


def test_rotating_again_replaces_the_pending_secret(
    client: FlaskClient, app: Flask, alice: Person
) -> None:
    old = alice.new_key()
    first, second = rotate(alice, old, grace_seconds=5), rotate(alice, old, grace_seconds=0)
    assert second["rotation"]["grace_seconds"] == 0
    assert not is_good(client, first)
    assert is_good(client, old)
    assert is_good(client, second)
    assert not is_good(client, old)
    assert client.post("/v1/api-keys/revoke", json={"key": first["key"]}).status_code == 204
    assert is_good(client, second), "a secret that was replaced revokes nothing"


def test_a_key_may_be_rotated_while_an_older_secret_is_in_grace(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    one = alice.new_key()
    two = rotate(alice, one, grace_seconds=600)
    assert is_good(client, two)
    three = rotate(alice, one, grace_seconds=300)
    assert three["hint"] == one["hint"]
    assert three["rotation"]["state"] == "pending"
    assert three["rotation"]["old_expires_at"] is not None
    assert is_good(client, one)
    assert is_good(client, two)
    assert is_good(client, three)
    assert not is_good(client, one), "an older grace ends when another begins"
    assert is_good(client, two)
    assert alice.get(path_of(one)).json["hint"] == two["rotation"]["hint"]
    travel(seconds=301)
    assert not is_good(client, two)
    assert is_good(client, three)


def test_however_often_a_key_is_rotated_few_secrets_are_kept(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key()
    for _ in range(5):
        rotate(alice, key)
    assert secrets_of(app) == 2
    for _ in range(5):
        assert is_good(client, rotate(alice, key))
        assert secrets_of(app) <= 3
    alice.delete(path_of(key))
    assert secrets_of(app) == 0


def test_id_limits_and_history_stay(
    client: FlaskClient, app: Flask, root: Person, alice: Person
) -> None:
    old = alice.new_key(
        quota={"remaining": 5}, rate_limit={"limit": 4, "window_seconds": 3600}, metadata={"a": 1}
    )
    assert verify(root, old["key"])["valid"]
    flush(app)
    used = alice.get(path_of(old)).json["last_used_at"]
    new = rotate(alice, old)
    assert (new["id"], new["last_used_at"], new["metadata"]) == (old["id"], used, {"a": 1})
    told = verify(root, new["key"])
    assert (told["key_id"], told["quota"]) == (old["id"], {"remaining": 3})
    assert told["rate_limit"]["remaining"] == 2
    assert verify(root, old["key"], cost=3)["quota"] == {"remaining": 0}
    assert verify(root, new["key"])["code"] == "usage_exceeded"
    assert verify(root, old["key"])["code"] == "rate_limited"


@pytest.mark.parametrize("which", ["old", "new"])
@pytest.mark.parametrize("activated", [False, True])
def test_revoking_by_either_secret_ends_the_whole_key(
    client: FlaskClient, alice: Person, which: str, activated: bool
) -> None:
    old = alice.new_key()
    new = rotate(alice, old)
    if activated:
        assert is_good(client, new)
    text = {"old": old, "new": new}[which]["key"]
    assert client.post("/v1/api-keys/revoke", json={"key": text}).status_code == 204
    assert not is_good(client, old)
    assert not is_good(client, new)
    assert alice.get(path_of(old)).json["status"] == "revoked"


def test_a_secret_whose_grace_is_over_revokes_nothing(client: FlaskClient, alice: Person) -> None:
    old = alice.new_key()
    new = rotate(alice, old, grace_seconds=0)
    assert is_good(client, new)
    assert client.post("/v1/api-keys/revoke", json={"key": old["key"]}).status_code == 204
    assert is_good(client, new)


def test_only_an_active_key_is_rotated(alice: Person, travel: Travel) -> None:
    keys = {name: alice.new_key(expires_in_days=1) for name in ("expired", "disabled", "revoked")}
    alice.patch(path_of(keys["disabled"]), {"disabled": True, "expires_at": None})
    alice.post(f"{path_of(keys['revoked'])}/revoke")
    travel(days=1, seconds=1)
    alice = alice.again()
    for name, key in keys.items():
        refused = alice.post(f"{path_of(key)}/rotate")
        assert_problem(refused, 409, "conflict")
        assert name in refused.json["detail"]
        assert state(alice, key) is None


def test_it_is_audited_and_shown_once(app: Flask, root: Person, alice: Person) -> None:
    key = alice.new_key()
    new = rotate(alice, key, grace_seconds=7)
    assert new["key"] not in alice.get(path_of(key)).text + alice.get("/v1/api-keys").text
    events = root.get(f"/v1/audit-events?target_id={key['id']}&action=key.rotate")
    [event] = events.json["items"]
    assert (event["actor_id"], event["outcome"]) == (alice.id, "success")
    assert event["detail"]["grace_seconds"] == 7
    assert new["key"] not in events.text


def test_a_first_use_is_one_guarded_update_and_later_ones_are_none(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    new = rotate(alice, alice.new_key())
    counts = []
    for _ in range(3):
        with statements(app) as ran:
            assert is_good(client, new)
        counts.append([sql.split()[0] for sql in ran].count("UPDATE"))
    assert counts == [1, 0, 0]


# --- who may ---


def test_administrators_rotate_their_own_and_those_of_service_accounts(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    assert is_good(client, rotate(root, root.new_key()))
    shop = root.post("/v1/auth/register", {"username": "shop", "kind": "service"}).json["id"]
    assert is_good(client, rotate(root, root.new_key(owner_id=shop)))
    key = alice.new_key()
    assert_problem(root.post(f"{path_of(key)}/rotate"), 403, "forbidden")
    assert state(alice, key) is None


def test_the_keys_of_others_are_not_found(alice: Person, bob: Person) -> None:
    key = alice.new_key()
    assert_problem(bob.post(f"{path_of(key)}/rotate"), 404, "not_found")
    holder = bob.with_key(bob.new_key(scopes=["keys:write"]))
    assert_problem(holder.post(f"{path_of(key)}/rotate"), 404, "not_found")
    reader = alice.with_key(alice.new_key(scopes=["keys:read"]))
    assert_problem(reader.post(f"{path_of(key)}/rotate"), 403, "insufficient_scope")


def test_a_key_rotates_keys_that_can_do_no_more_and_never_itself(
    client: FlaskClient, alice: Person
) -> None:
    own = alice.new_key(
        scopes=["keys:write", "a:b"], expires_in_days=5, allowed_ips=["127.0.0.0/8"]
    )
    manager = alice.with_key(own)
    assert_problem(manager.post(f"{path_of(own)}/rotate"), 403, "session_required")
    narrow = {"scopes": ["a:b"], "expires_in_days": 4, "allowed_ips": ["127.0.0.1/32"]}
    assert is_good(client, rotate(manager, alice.new_key(**narrow)))
    for wider in ({"scopes": ["a:*"]}, {"allowed_ips": []}, {"expires_in_days": 6}):
        key = alice.new_key(**{**narrow, **wider})
        assert_problem(manager.post(f"{path_of(key)}/rotate"), 403, "insufficient_scope")
        assert_problem(manager.patch(path_of(key), {"name": "x"}), 403, "insufficient_scope")
        assert state(alice, key) is None


def test_a_key_that_was_rotated_manages_by_either_secret(alice: Person) -> None:
    own = alice.new_key(scopes=["keys:write"])
    new, target = rotate(alice, own), alice.new_key()
    for secret in (own, new, own):
        manager = alice.with_key(secret)
        assert manager.patch(path_of(target), {"name": "x"}).status_code == 200
        assert_problem(manager.post(f"{path_of(own)}/rotate"), 403, "session_required")


# --- another SECRET_KEY ---


def test_both_secrets_move_to_a_new_secret_key(make_app: Callable[..., Flask]) -> None:
    first = make_app(secret_key=OLD)
    client = client_of(first)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    key = alice.new_key()
    new = rotate(alice, key)
    renewed = {"database_url": url_of(first), "secret_key": NEW}
    between = client_of(make_app(**renewed, secret_key_fallbacks=OLD))
    for secret in (key, new, key):
        assert is_good(between, secret)
    after = client_of(make_app(**renewed))
    assert is_good(after, key)
    assert is_good(after, new)


# --- many at once ---


def test_of_parallel_first_uses_one_activates_and_all_are_valid(
    make_app: Callable[..., Flask], alice: Person
) -> None:
    other = client_of(make_app(database_url=url_of(alice.client.application)))
    for grace in (0, 600):
        key = alice.new_key(quota={"remaining": 100})
        new = rotate(alice, key, grace_seconds=grace)
        uses = [partial(me, alice.client, new)] * 8 + [partial(me, other, new)] * 8
        assert statuses(at_once(*uses)) == {200: 16}
        kept = alice.get(path_of(key)).json
        assert kept["quota"]["remaining"] == 84
        assert (kept["rotation"] is None) is (grace == 0)
        assert is_good(alice.client, key) is (grace > 0)


def test_a_secret_that_is_replaced_during_its_first_use_spends_nothing(
    client: FlaskClient, app: Flask, alice: Person
) -> None:
    for activated_by_another in (False, True):
        key = alice.new_key(quota={"remaining": 5})
        new = rotate(alice, key)
        act = partial(alice.post, f"{path_of(key)}/rotate")
        if activated_by_another:
            act = partial(me, client, new)
        with behind_the_guard(app, act):
            assert is_good(client, new) is activated_by_another
        assert state(alice, key) == ("grace" if activated_by_another else "pending")
        left = alice.get(path_of(key)).json["quota"]["remaining"]
        assert left == (3 if activated_by_another else 5)


def test_concurrent_rotations_and_first_uses_succeed(
    client: FlaskClient, app: Flask, alice: Person
) -> None:
    """A refused use spends nothing, and the secret that was shown last works."""
    for _ in range(2):
        key = alice.new_key(quota={"remaining": 1000})
        new = rotate(alice, key)
        rotations = [partial(alice.post, f"{path_of(key)}/rotate", {"grace_seconds": 600})] * 3
        answers = at_once(*[partial(me, client, new)] * 8, *rotations)
        assert statuses(answers[8:]) == {200: 3}
        used = statuses(answers[:8])
        assert set(used) <= {200, 401}
        assert alice.get(path_of(key)).json["quota"]["remaining"] == 1000 - used.get(200, 0)
        waiting = alice.get(path_of(key)).json["rotation"]["hint"]
        [last] = [each.json for each in answers[8:] if each.json["rotation"]["hint"] == waiting]
        assert is_good(client, last)
        assert is_good(client, key) or is_good(client, new)
        assert secrets_of(app) <= 4
        alice.delete(path_of(key))


def test_a_key_is_read_whole_while_it_is_rotated_used_and_deleted(
    client: FlaskClient, alice: Person
) -> None:
    for _ in range(3):
        key = alice.new_key()
        new = rotate(alice, key)
        reads = [partial(alice.get, path_of(key)), partial(alice.get, "/v1/api-keys")] * 6
        writes = [partial(alice.post, f"{path_of(key)}/rotate"), partial(me, client, new)] * 3
        answers = at_once(*reads, *writes, partial(alice.delete, path_of(key)))
        assert {answer.status_code for answer in answers} <= {200, 204, 401, 404}
