"""Scopes: what they cover, what a role allows, and keys that manage keys."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.api_keys import scopes

from .support.people import Person, add_user, sign_in
from .support.problems import assert_problem

FOR_ADMINS = ["users:read", "users:write", "audit:read"]
FOR_SERVICES = ["keys:verify", "tokens:introspect"]
FOR_ALL = ["keys:read", "keys:write"]
MANAGER = ["keys:read", "keys:write", "reports:*"]


def path_of(key: dict[str, Any]) -> str:
    return f"/v1/api-keys/{key['id']}"


def effective(person: Person, key: dict[str, Any]) -> set[str]:
    """What the key may do at this moment."""
    response = person.with_key(key).get("/v1/auth/me")
    assert response.status_code == 200, response.json
    return set(response.json["auth"]["scopes"])


@pytest.fixture
def manager(alice: Person) -> Person:
    """Alice by a key that manages keys and expires in ten days."""
    return alice.with_key(alice.new_key(scopes=MANAGER, expires_in_days=10))


# --- the rules by themselves ---


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ([], "a:x", False),
        (["a:x"], "a:x", True),
        (["a:x"], "a:y", False),
        (["a:x"], "a:*", False),
        (["a:*"], "a:x", True),
        (["a:*"], "a:*", True),
        (["a:*"], "ab:x", False),
        (["ab:*"], "a:x", False),
        (["b:*", "a:y"], "a:x", False),
        (["b:*", "a:x"], "a:x", True),
    ],
)
def test_a_wildcard_covers_its_own_area_and_no_other(
    held: list[str], wanted: str, covered: bool
) -> None:
    for kind in (list, tuple, set, frozenset):
        assert scopes.covers(kind(held), wanted) is covered
        assert scopes.within([wanted], kind(held)) is covered


def test_within_requires_every_scope_to_be_covered() -> None:
    assert scopes.within([], [])
    assert scopes.within([], ["a:x"])
    assert scopes.within(["a:x", "b:y"], ["a:*", "b:y", "c:z"])
    assert not scopes.within(["a:x", "b:y"], ["a:*"])
    assert not scopes.within(["a:*"], ["a:x", "a:y"])


def test_which_scopes_a_role_and_kind_may_have() -> None:
    for scope in [*FOR_ADMINS, *FOR_SERVICES, *FOR_ALL, "users:*", "keys:*", "a:x", "a:*"]:
        for kind in ("person", "service"):
            assert scopes.allowed(scope, "admin", kind)
    for scope in [*FOR_ADMINS, "users:*", "audit:*", "users:other", "audit:other"]:
        for kind in ("person", "service"):
            assert not scopes.allowed(scope, "user", kind)
    for scope in [*FOR_SERVICES, "keys:*", "tokens:*"]:
        assert not scopes.allowed(scope, "user", "person")
        assert scopes.allowed(scope, "user", "service")
    for scope in [*FOR_ALL, "keys:other", "tokens:other", "a:x", "a:*", "usersx:read"]:
        for kind in ("person", "service"):
            assert scopes.allowed(scope, "user", kind)


def test_effective_scopes_are_stored_and_allowed() -> None:
    stored = ["a:*", "keys:*", "tokens:*", "users:*", "audit:read", "reports:read"]
    assert scopes.effective(stored, "admin", "person") == frozenset(stored)
    left = {"a:*", "keys:read", "keys:write", "reports:read"}
    assert scopes.effective(stored, "user", "person") == left
    left = {"a:*", "keys:*", "tokens:*", "reports:read"}
    assert scopes.effective(stored, "user", "service") == left
    for role in ("user", "admin"):
        for kind in ("person", "service"):
            left = scopes.effective([*stored, *scopes.OWN], role, kind)
            assert scopes.within(left, stored + list(scopes.OWN))
            assert all(scopes.allowed(scope, role, kind) for scope in left)
            assert scopes.effective([], role, kind) == frozenset()


def test_the_services_own_scopes_are_those_of_the_contract() -> None:
    assert {*FOR_ADMINS, *FOR_SERVICES, *FOR_ALL} <= set(scopes.OWN)


# --- what a role allows ---


def test_a_key_has_no_scopes_unless_given_some(alice: Person) -> None:
    key = alice.new_key()
    assert key["scopes"] == []
    assert effective(alice, key) == set()


def test_a_user_may_give_what_the_role_allows_and_no_more(alice: Person) -> None:
    given = [*FOR_ALL, "reports:*", "reports:read"]
    key = alice.new_key(scopes=given)
    assert effective(alice, key) == set(key["scopes"]) == set(given)
    for scope in [*FOR_ADMINS, *FOR_SERVICES, "users:*", "audit:*", "keys:*", "tokens:*"]:
        refused = alice.post("/v1/api-keys", {"name": "x", "scopes": ["a:x", scope]})
        assert_problem(refused, 403, "insufficient_scope")
        refused = alice.patch(path_of(key), {"scopes": [scope], "name": "x"})
        assert_problem(refused, 403, "insufficient_scope")
    assert len(alice.get("/v1/api-keys").json["items"]) == 1
    kept = alice.get(path_of(key)).json
    assert (set(kept["scopes"]), kept["name"]) == (set(given), "test")


def test_an_admin_may_give_all(root: Person) -> None:
    given = [*FOR_ALL, *FOR_ADMINS, *FOR_SERVICES, "users:*", "audit:*", "keys:*", "tokens:*"]
    assert effective(root, root.new_key(scopes=given)) == set(given)


def test_the_owners_role_counts_not_that_of_the_admin_who_changes_the_key(
    alice: Person, root: Person
) -> None:
    key = alice.new_key()
    refused = root.patch(path_of(key), {"scopes": ["users:read"]})
    assert_problem(refused, 403, "insufficient_scope")
    assert root.patch(path_of(key), {"scopes": ["keys:read"]}).status_code == 200


def test_a_change_of_role_counts_at_the_next_request(client: FlaskClient, root: Person) -> None:
    add_user(client, "carol", role="admin")
    carol = sign_in(client, "carol")
    given = {"users:*", "audit:read", "keys:*", "tokens:introspect", "reports:*"}
    key = carol.new_key(scopes=sorted(given))
    assert carol.with_key(key).get("/v1/users").status_code == 200

    assert root.patch(f"/v1/users/{carol.id}", {"role": "user"}).status_code == 200
    assert effective(carol, key) == {"keys:read", "keys:write", "reports:*"}
    assert_problem(carol.with_key(key).get("/v1/users"), 403, "insufficient_scope")
    assert carol.with_key(key).get("/v1/api-keys").status_code == 200
    assert set(carol.get(path_of(key)).json["scopes"]) == given

    assert root.patch(f"/v1/users/{carol.id}", {"role": "admin"}).status_code == 200
    assert effective(carol, key) == given
    assert carol.with_key(key).get("/v1/users").status_code == 200


def test_a_missing_scope_is_named_in_the_challenge(alice: Person) -> None:
    bare = alice.with_key(alice.new_key(scopes=["keys:read", "reports:*"]))
    for response, scope in [
        (bare.post("/v1/api-keys", {"name": "x"}), "keys:write"),
        (bare.get("/v1/users"), "users:read"),
        (bare.post("/v1/auth/register", {}), "users:write"),
    ]:
        assert_problem(response, 403, "insufficient_scope")
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        assert response.headers["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("held", ["keys:write", "keys:read", "reports:*", "keys:verifyx"])
def test_one_scope_does_not_imply_another(alice: Person, held: str) -> None:
    holder = alice.with_key(alice.new_key(scopes=[held]))
    reads = holder.get("/v1/api-keys").status_code
    writes = holder.post("/v1/api-keys", {"name": "x"}).status_code
    assert (reads, writes) == {"keys:write": (403, 201), "keys:read": (200, 403)}.get(
        held, (403, 403)
    )


# --- keys that manage keys ---


def test_a_key_mints_keys_for_its_owner(alice: Person, manager: Person) -> None:
    minted = manager.new_key(scopes=["reports:read", "keys:read"], expires_in_days=9)
    assert minted["owner_id"] == alice.id
    assert effective(alice, minted) == {"reports:read", "keys:read"}
    assert alice.get(path_of(minted)).json["name"] == "test"
    listed = {key["id"] for key in manager.get("/v1/api-keys").json["items"]}
    assert minted["id"] in listed


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([], 201),
        (["reports:read"], 201),
        (["reports:*"], 201),
        (MANAGER, 201),
        (["reportsx:read"], 403),
        (["other:read"], 403),
        (["keys:read", "other:read"], 403),
        (["keys:*"], 403),
        (["users:read"], 403),
    ],
)
def test_a_key_cannot_give_a_scope_that_it_lacks(
    alice: Person, manager: Person, given: list[str], status: int
) -> None:
    wanted = {"scopes": given, "expires_in_days": 9}
    minted = manager.post("/v1/api-keys", {"name": "x", **wanted})
    target = alice.new_key(scopes=["reports:read"], expires_in_days=9)
    patched = manager.patch(path_of(target), {"scopes": given})
    assert (minted.status_code, patched.status_code) == (status, 200 if status == 201 else 403)
    if status == 403:
        assert_problem(minted, 403, "insufficient_scope")
        assert_problem(patched, 403, "insufficient_scope")
        assert alice.get(path_of(target)).json["scopes"] == ["reports:read"]


def test_an_admins_key_is_bound_by_its_scopes_too(root: Person) -> None:
    holder = root.with_key(root.new_key(scopes=["keys:write", "users:read"]))
    assert holder.post("/v1/api-keys", {"name": "x", "scopes": ["users:read"]}).status_code == 201
    for scope in ("users:write", "users:*", "keys:read", "reports:read"):
        refused = holder.post("/v1/api-keys", {"name": "x", "scopes": [scope]})
        assert_problem(refused, 403, "insufficient_scope")


def test_a_demoted_owners_key_gives_effective_not_stored_scopes(
    client: FlaskClient, root: Person
) -> None:
    add_user(client, "carol", role="admin")
    carol = sign_in(client, "carol")
    holder = carol.with_key(carol.new_key(scopes=["keys:*", "users:*"]))
    root.patch(f"/v1/users/{carol.id}", {"role": "user"})
    for scope in ("users:read", "keys:verify", "keys:*"):
        refused = holder.post("/v1/api-keys", {"name": "x", "scopes": [scope]})
        assert_problem(refused, 403, "insufficient_scope")
    given = {"name": "x", "scopes": ["keys:read", "keys:write"]}
    assert holder.post("/v1/api-keys", given).status_code == 201


def test_a_key_cannot_give_a_longer_life_than_its_own(alice: Person, manager: Person) -> None:
    own = manager.get("/v1/api-keys").json["items"][0]["expires_at"]
    target = alice.new_key(expires_in_days=1)
    for longer in ({}, {"expires_at": None}, {"expires_in_days": 11}):
        refused = manager.post("/v1/api-keys", {"name": "x", **longer})
        assert_problem(refused, 403, "insufficient_scope")
    for longer in (None, "2999-01-01T00:00:00Z", own.replace("Z", "-00:01")):
        refused = manager.post("/v1/api-keys", {"name": "x", "expires_at": longer})
        assert_problem(refused, 403, "insufficient_scope")
        refused = manager.patch(path_of(target), {"expires_at": longer})
        assert_problem(refused, 403, "insufficient_scope")
    assert alice.get(path_of(target)).json["expires_at"] == target["expires_at"]
    assert manager.new_key(expires_at=own)["expires_at"] == own
    assert manager.patch(path_of(target), {"expires_at": own}).status_code == 200


def test_a_key_without_expiry_may_give_any(alice: Person) -> None:
    holder = alice.with_key(alice.new_key(scopes=["keys:write"]))
    assert holder.new_key()["expires_at"] is None
    assert holder.new_key(expires_in_days=3650)["expires_at"]


def test_a_key_acts_only_on_keys_that_can_do_no_more_than_itself(
    client: FlaskClient, alice: Person, manager: Person
) -> None:
    wider = alice.new_key(scopes=["reports:read", "other:read"], expires_in_days=1)
    for response in (
        manager.patch(path_of(wider), {"name": "x"}),
        manager.patch(path_of(wider), {"scopes": []}),
        manager.patch(path_of(wider), {"disabled": True}),
        manager.post(f"{path_of(wider)}/revoke"),
        manager.delete(path_of(wider)),
    ):
        assert_problem(response, 403, "insufficient_scope")
    kept = alice.get(path_of(wider)).json
    assert kept == {name: value for name, value in wider.items() if name != "key"}

    narrower = alice.new_key(scopes=["reports:read"], expires_in_days=1)
    assert manager.get(path_of(narrower)).status_code == 200
    assert manager.patch(path_of(narrower), {"name": "x"}).json["name"] == "x"
    assert manager.patch(path_of(narrower), {"disabled": True}).status_code == 200
    assert manager.post(f"{path_of(narrower)}/revoke").json["status"] == "revoked"
    assert manager.delete(path_of(narrower)).status_code == 204


@pytest.mark.parametrize(
    "changes",
    [{}, {"name": "x"}, {"scopes": []}, {"expires_at": None}, {"disabled": True}],
)
def test_a_key_neither_changes_nor_deletes_itself(alice: Person, changes: dict[str, Any]) -> None:
    key = alice.new_key(scopes=MANAGER, expires_in_days=10)
    holder = alice.with_key(key)
    assert_problem(holder.patch(path_of(key), changes), 403, "session_required")
    assert_problem(holder.delete(path_of(key)), 403, "session_required")
    assert alice.get(path_of(key)).json == {
        name: value for name, value in key.items() if name != "key"
    }


def test_a_key_may_revoke_itself(alice: Person) -> None:
    key = alice.new_key(scopes=["keys:write"])
    holder = alice.with_key(key)
    revoked = holder.post(f"{path_of(key)}/revoke")
    assert (revoked.status_code, revoked.json["status"]) == (200, "revoked")
    assert_problem(holder.get("/v1/auth/me"), 401, "invalid_credentials")
    assert alice.get(path_of(key)).json["status"] == "revoked"


def test_a_key_whose_wildcard_was_narrowed_may_still_revoke_itself(
    client: FlaskClient, root: Person
) -> None:
    add_user(client, "carol", role="admin")
    carol = sign_in(client, "carol")
    key = carol.new_key(scopes=["keys:*", "users:*"])
    root.patch(f"/v1/users/{carol.id}", {"role": "user"})
    revoked = carol.with_key(key).post(f"{path_of(key)}/revoke")
    assert (revoked.status_code, revoked.json["status"]) == (200, "revoked")


def test_a_minted_key_outlives_neither_its_owner_nor_its_own_expiry(
    client: FlaskClient, alice: Person, manager: Person, travel: Callable[..., None]
) -> None:
    minted = manager.new_key(expires_in_days=1)
    travel(days=1, seconds=1)
    assert_problem(alice.with_key(minted).get("/v1/auth/me"), 401, "invalid_credentials")
    assert manager.get("/v1/auth/me").status_code == 200


# --- keys that read keys ---


@pytest.mark.slow
def test_a_key_that_reads_keys_sees_itself_and_those_within_its_scopes(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    reader = alice.new_key(name="reader", scopes=["keys:read", "a_b:*", "c:read"])
    seen = {
        each["id"]: each
        for each in [
            reader,
            alice.new_key(name="no scopes"),
            alice.new_key(name="same area", scopes=["a_b:x", "a_b:*"]),
            alice.new_key(name="same scope", scopes=["c:read", "keys:read"]),
        ]
    }
    hidden = [
        alice.new_key(name=scope, scopes=[scope, "c:read"])
        for scope in ("keys:write", "axb:x", "a_b2:x", "c:*", "c:write")
    ]
    holder = alice.with_key(reader)
    listed = holder.get("/v1/api-keys").json["items"]
    assert [each["id"] for each in listed] == sorted(seen, reverse=True)
    paged, cursor = [], ""
    while cursor is not None:
        page = holder.get(f"/v1/api-keys?limit=1{cursor and f'&cursor={cursor}'}").json
        paged += page["items"]
        cursor = page["next"]
    assert paged == listed
    assert len(holder.get("/v1/api-keys?search=s&status=active").json["items"]) == 3
    for key in hidden:
        for answer in (
            holder.get(path_of(key)),
            holder.get(f"{path_of(key)}/usage"),
            holder.post(f"{path_of(key)}/explain"),
        ):
            assert_problem(answer, 403, "insufficient_scope")
        assert alice.get(path_of(key)).status_code == 200
    for key_id in seen:
        assert holder.get(f"/v1/api-keys/{key_id}").status_code == 200
        assert holder.post(f"/v1/api-keys/{key_id}/explain").status_code == 200
    of_root = root.new_key()
    assert_problem(holder.get(path_of(of_root)), 404, "not_found")


def test_a_key_that_holds_more_than_its_owner_may_now_still_sees_itself(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    root.patch(f"/v1/users/{alice.id}", {"role": "admin"})
    key = alice.new_key(scopes=["keys:read", "users:read"])
    other = alice.new_key(scopes=["users:read"])
    root.patch(f"/v1/users/{alice.id}", {"role": "user"})
    holder = alice.with_key(key)
    assert [each["id"] for each in holder.get("/v1/api-keys").json["items"]] == [key["id"]]
    assert holder.get(path_of(key)).status_code == 200
    assert_problem(holder.get(path_of(other)), 403, "insufficient_scope")
