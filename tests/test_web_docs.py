"""The documentation: a valid document that keeps its word, and two pages from this process."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from backend.core.settings import ROOT
from backend.web import problems
from backend.web.fields import ResponseSchema

from .support.apps import client_of
from .support.databases import ON_SQLITE
from .support.mail import mails_of, token_in
from .support.mfa import code_of, enrol
from .support.openapi import make_others
from .support.people import PASSWORD, Person, add_user, sign_in

PAGES = ["/v1/docs", "/v1/redoc"]
FORM = "application/x-www-form-urlencoded"
BY_ITSELF = "/v1/verify"  # of any method and without a body: test_forward_auth_verify.py
METHODS = ("get", "post", "patch", "delete")
ANYWHERE = re.compile(r"""(?:https?:)?//[\w.-]+""")


@pytest.fixture
def document(bare: FlaskClient) -> dict[str, Any]:
    """The OpenAPI document."""
    response = bare.get("/v1/openapi.json")
    assert (response.status_code, response.content_type) == (200, "application/json")
    return response.json


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of each."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item and path != BY_ITSELF:
                yield method, path, item[method]


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with the value, according to a schema of the document's."""
    whole = {**schema, "components": document["components"]}
    found = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(value)
    return [f"{fault.json_path}: {fault.message}" for fault in found]


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(copy.deepcopy(document), cls=OpenAPIV31SpecValidator)


def test_it_holds_exactly_the_routes_that_there_are(
    document: dict[str, Any], bare: FlaskClient
) -> None:
    routes = {
        (method.lower(), re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule))
        for rule in bare.application.url_map.iter_rules()
        for method in rule.methods or ()
        if not rule.endpoint.startswith(("docs.", "password_page.")) and method.lower() in METHODS
    }
    assert {(method, path) for method, path, _ in operations(document)} == routes


def test_each_operation_says_what_it_is(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    names = []
    for method, path, operation in operations(document):
        assert operation["summary"], path
        assert not operation["summary"].endswith(".")
        assert operation["tags"], (method, path)
        assert set(operation["tags"]) <= tags
        assert re.fullmatch("[a-z][a-z0-9_]+", operation["operationId"])
        names.append(operation["operationId"])
    assert len(names) == len(set(names))


def test_each_operation_has_a_summary_and_a_description(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method in set(item) & set(METHODS):
            operation = item[method]
            assert operation["summary"].strip(), (method, path)
            assert operation["description"].strip(), (method, path)
            for parameter in [*item.get("parameters", []), *operation.get("parameters", [])]:
                assert parameter["description"].strip(), (method, path, parameter["name"])


def test_each_property_of_a_schema_has_a_description(document: dict[str, Any]) -> None:
    """Of its own, or that of the schema it refers to."""
    schemas = document["components"]["schemas"]
    described = {name for name, schema in schemas.items() if schema.get("description")}
    without = [
        f"{name}.{member}"
        for name, schema in schemas.items()
        for member, of in schema.get("properties", {}).items()
        if not of.get("description") and of.get("$ref", "").rpartition("/")[2] not in described
    ]
    assert without == []


def test_each_operation_says_who_may_call_it(document: dict[str, Any], bare: FlaskClient) -> None:
    schemes = document["components"]["securitySchemes"]
    for method, path, operation in operations(document):
        for requirement in operation["security"]:
            assert set(requirement) <= set(schemes)
        if operation["security"]:
            place = re.sub(r"\{\w+\}", "0192d3a4-5b6c-7d8e-9f01-23456789abcd", path)
            assert bare.open(place, method=method).json["code"] == "unauthenticated"
            assert {"400", "401"} <= set(operation["responses"])
        else:
            asking = {"/v1/auth/login", "/v1/auth/login/mfa", "/v1/auth/refresh", "/metrics"}
            assert ("401" in operation["responses"]) == (path in asking)


def test_each_path_parameter_is_declared(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        declared = {p["name"] for p in item.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_each_success_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    wrong = {}
    for method, path, operation in operations(document):
        successes = {s: r for s, r in operation["responses"].items() if s < "300"}
        assert len(successes) == 1, (method, path)
        [(status, response)] = successes.items()
        assert response["description"]
        is_empty = status in {"202", "204"} or path == "/v1/auth/revoke"
        assert ("content" in response) is not is_empty, (method, path)
        for kind, content in response.get("content", {}).items():
            assert kind == ("text/plain" if path == "/metrics" else "application/json")
            wrong[method, path] = faults(document, content["schema"], content["example"])
    assert {place: found for place, found in wrong.items() if found} == {}


def test_each_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if "requestBody" in operation:
            optional = path.endswith(("/explain", "/rotate", "}/revoke"))
            assert operation["requestBody"]["required"] is not optional
            [(kind, content)] = operation["requestBody"]["content"].items()
            is_form = path in {"/v1/auth/introspect", "/v1/auth/revoke"}
            assert kind == (FORM if is_form else "application/json")
            assert content["example"], (method, path)
            assert faults(document, content["schema"], content["example"]) == []


def test_each_body_is_refused_with_unknown_fields_in_the_document_too(
    document: dict[str, Any],
) -> None:
    for _, path, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            example = content["example"] | {"no_such_field": 1}
            refused = bool(faults(document, content["schema"], example))
            assert refused is (kind != FORM), path  # RFC 6749 section 3.2: forms are open


def test_each_refusal_is_a_problem_and_shows_the_codes_it_may_have(
    document: dict[str, Any],
) -> None:
    for method, path, operation in operations(document):
        refusals = {s: r for s, r in operation["responses"].items() if s >= "300"}
        assert {"422", "500", "503"} <= set(refusals), (method, path)
        for status, response in refusals.items():
            [(kind, content)] = response["content"].items()
            assert kind == "application/problem+json"
            if status == "default":
                assert content == {"schema": {"$ref": "#/components/schemas/Problem"}}
                continue
            assert set(re.findall("`([a-z_]+)`", response["description"])) >= set(
                content["examples"]
            )
            for code, example in content["examples"].items():
                value = example["value"]
                assert (value["code"], str(value["status"])) == (code, status)
                assert faults(document, content["schema"], value) == []


def test_the_codes_of_the_schema_are_those_of_the_table(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["ProblemCode"]["enum"]) == set(problems.CODES)
    problem = schemas["Problem"]
    optional = {"errors", "mfa_token", "error"}
    assert set(problem["required"]) == set(problem["properties"]) - optional


OPTIONAL = {
    "Auth": {"session_id", "key_id"},
    "Problem": {"errors", "mfa_token", "error"},
    "PublicKey": {"y"},
    "Metadata": {"jwks_uri"},
    "Verified": {"key_id", "owner", "name", "scopes", "metadata", "expires_at"}
    | {"rate_limit", "quota", "checks"},
    "Introspection": {"token_type", "sub", "username", "role", "scope", "client_id", "sid"}
    | {"iat", "exp", "iss", "aud", "jti"},
}


def reached(document: dict[str, Any], part: Any) -> set[str]:
    """The names of the schemas that a part of the document refers to, also by way of others."""
    found: set[str] = set()
    todo = set(re.findall("'#/components/schemas/([A-Za-z]+)'", str(part)))
    while todo - found:
        found |= todo
        inner = [document["components"]["schemas"][name] for name in todo]
        todo = set(re.findall("'#/components/schemas/([A-Za-z]+)'", str(inner)))
    return found


def subclasses(kind: type) -> Iterator[type]:
    """All classes below this one."""
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_what_is_answered_says_which_members_are_always_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    answers = reached(document, [each["responses"] for _, _, each in operations(document)])
    assert {"User", "ApiKeyPage", "Rotation", "Owner"} <= answers
    sometimes = {
        each.__name__.removesuffix("Schema"): each.sometimes for each in subclasses(ResponseSchema)
    }
    for name in answers:
        if schemas[name]["type"] == "object":
            members = set(schemas[name]["properties"])
            optional = OPTIONAL.get(name, sometimes.get(name, set()))
            assert set(schemas[name]["required"]) == members - optional, name


def test_what_is_asked_has_the_declared_members_only(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    asked = [each.get("requestBody") for _, _, each in operations(document)]
    for name in reached(document, asked):
        closed = schemas[name].get("additionalProperties") is False
        assert closed is (name != "PresentedToken") or schemas[name]["type"] == "string", name


def test_every_schema_is_used_and_every_choice_has_a_name(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert reached(document, document["paths"]) == set(schemas)
    assert {name for name, schema in schemas.items() if "enum" in schema} >= {
        *("AuditAction", "AuditOutcome", "AuthMethod", "KeyStatus", "Kind"),
        *("LockedByAdmin", "ProblemCode", "RefillInterval", "Role", "RotationState", "TokenType"),
        *("UsageInterval", "VerifyCode"),
    }
    named = str([schema for schema in schemas.values() if "enum" not in schema])
    assert "'enum'" not in named + str(document["paths"])


def test_patterns_mean_the_same_to_every_reader(document: dict[str, Any]) -> None:
    r"""JSON Schema's regular expressions are ECMAScript's: they match anywhere unless anchored by
    ^ and $, and know no \Z."""
    found = re.findall(r"'pattern': '([^']+)'", str(document))
    assert found
    for pattern in found:
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        assert "\\Z" not in pattern
        assert "\\A" not in pattern


def second_step(alice: Person) -> str:
    """What signing in answers where a second factor is asked for."""
    login = {"username": "alice", "password": PASSWORD}
    return alice.client.post("/v1/auth/login", json=login).json["mfa_token"]


def reset_link(alice: Person) -> str:
    """The token that is mailed for a forgotten password."""
    alice.client.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    return token_in(mails_of(alice.client)[-1])


def confirmation_link(alice: Person) -> str:
    """The token that is mailed to a new address."""
    alice.patch("/v1/auth/me", {"email": "new@example.com", "current_password": PASSWORD})
    return token_in(mails_of(alice.client)[-1])


SECRETS: dict[str, Callable[[Person], str]] = {
    "bt": lambda alice: alice.new_key(scopes=["reports:read"])["key"],
    "btr": lambda alice: alice.refresh_token,
    "btm": second_step,
    "btp": reset_link,
    "bte": confirmation_link,
}


def with_secrets(alice: Person, path: str, example: dict[str, Any]) -> dict[str, Any]:
    """The example with real secrets in place of its own, which no document can know."""
    body = dict(example)
    if "code" in body:
        begins = path.endswith("/confirm")
        begun = alice.post("/v1/auth/mfa", {"current_password": PASSWORD}) if begins else None
        body["code"] = code_of(begun.json["secret"] if begun else enrol(alice)[0], not begins)
    for name, text in example.items():
        kind = re.match("bt[a-z]?(?=_)", str(text))
        body |= {name: SECRETS[kind[0]](alice)} if kind else {}
    return body


def examples_of_bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """(method, path, example of the body, whether it is a form) of each operation that has one."""
    for method, path, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            yield method, path, content["example"], kind == FORM


@pytest.mark.slow
@ON_SQLITE
def test_each_example_of_a_body_works_as_it_is(
    make_app: Callable[..., Flask], document: dict[str, Any], travel: Callable[..., None]
) -> None:
    """What a reader sends first. Only secrets, which no document can know, are put in."""
    travel(days=5 * 365)
    for method, path, example, is_form in examples_of_bodies(document):
        client = client_of(make_app())
        add_user(client, "root", role="admin")
        root = sign_in(client, "root")
        callers, place, body = [root], path, example
        if path != "/v1/auth/register":  # whose example makes alice
            add_user(client, "alice")
            alice = sign_in(client, "alice")
            callers = [alice, root]
            known = {"user_id": alice.id, "key_id": alice.new_key()["id"]}
            place = path.format_map(make_others(alice, known))
            body = with_secrets(alice, path, example)
        sent = {"data": body} if is_form else {"json": body}
        for caller in callers:
            answer = client.open(place, method=method, headers=caller.headers, **sent)
            if answer.status_code != 403:
                break
        assert answer.status_code < 300, (path, answer.json)


def test_the_example_of_a_new_key_makes_one_that_works_from_anywhere_at_any_time(
    make_app: Callable[..., Flask], document: dict[str, Any], travel: Callable[..., None]
) -> None:
    examples = {
        path: body for method, path, body, _ in examples_of_bodies(document) if method == "post"
    }
    travel(days=5 * 365)
    client = client_of(make_app(trusted_proxies="127.0.0.1"))
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    key = root.new_key(**examples["/v1/api-keys"])
    for address in ("127.0.0.1", "198.51.100.1", "2001:db8::1"):
        sent = {"X-API-Key": key["key"], "X-Forwarded-For": address}
        assert client.get("/v1/auth/me", headers=sent).status_code == 200
    asked = examples["/v1/api-keys/verify"] | {"key": key["key"]}
    assert root.post("/v1/api-keys/verify", asked).json["code"] == "valid"
    explained = root.post(
        f"/v1/api-keys/{key['id']}/explain", examples["/v1/api-keys/{key_id}/explain"]
    )
    assert explained.json["code"] == "valid"


def test_no_query_parameter_is_filled_in_before_the_reader_fills_it_in(
    document: dict[str, Any], root: Person, alice: Person
) -> None:
    """Swagger UI sends examples and defaults: only the latter mean the same as nothing."""
    for _, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query":
                told = str(parameter)
                assert "'example'" not in told, (path, told)
                assert "'examples'" not in told, (path, told)
                default = parameter["schema"].get("default")
                assert default == (50 if parameter["name"] == "limit" else None), path
    assert root.get("/v1/users?limit=50").json == root.get("/v1/users").json


def test_answers_fit_the_document(root: Person, document: dict[str, Any]) -> None:
    key = root.new_key(scopes=["reports:read"], expires_in_days=3)
    body = {"username": "root", "password": PASSWORD}
    by_key = root.client.get("/v1/auth/me", headers={"X-API-Key": key["key"]})
    answers = [
        ("post", "/v1/auth/login", root.client.post("/v1/auth/login", json=body)),
        ("get", "/v1/auth/me", root.get("/v1/auth/me")),
        ("get", "/v1/auth/me", by_key),
        ("get", "/v1/users", root.get("/v1/users?limit=1")),
        ("get", "/v1/users/{user_id}", root.get(f"/v1/users/{root.id}")),
        ("get", "/v1/api-keys", root.get("/v1/api-keys")),
        ("post", "/v1/api-keys", root.post("/v1/api-keys", {"name": "x"})),
        ("get", "/v1/api-keys/{key_id}", root.get(f"/v1/api-keys/{key['id']}")),
        ("get", "/readyz", root.get("/readyz")),
        ("get", "/", root.get("/")),
    ]
    for method, path, response in answers:
        documented = document["paths"][path][method]["responses"][str(response.status_code)]
        schema = documented["content"]["application/json"]["schema"]
        assert faults(document, schema, response.json) == [], path


# --- the pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_a_page_and_all_it_names_come_from_this_process(bare: FlaskClient, path: str) -> None:
    page = bare.get(path)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert ANYWHERE.findall(page.text) == []
    names = re.findall(r"""(?:src|href)="([^"]+)\"""", page.text)
    assert len(names) >= 3
    for name in names:
        if name.startswith("data:"):
            continue
        assert name.startswith("docs/assets/")  # relative, so that it is right under any prefix
        asset = bare.get(f"/v1/{name}")
        assert asset.status_code == 200
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert asset.mimetype == kind
        assert asset.data
        if name.endswith(("/swagger.js", "/redoc.js")):
            assert ANYWHERE.findall(asset.text) == []
            assert '"openapi.json"' in asset.text
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|<style|style=", page.text)


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"])
def test_a_library_is_whole(bare: FlaskClient, name: str) -> None:
    asset = bare.get(f"/v1/docs/assets/{name}")
    assert len(asset.data) > 100_000
    assert asset.content_length == len(asset.data)


def test_documentation_that_is_off_is_not_there(make_bare_app: Callable[..., Flask]) -> None:
    off = client_of(make_bare_app(docs_enabled="false"))
    for path in [*PAGES, "/v1/openapi.json", "/v1/docs/assets/swagger.js"]:
        response = off.get(path)
        assert (response.status_code, response.json["code"]) == (404, "not_found")
    assert set(off.get("/").json["links"]) == {"healthz", "readyz"}


def test_the_front_page_links_what_is_there(bare: FlaskClient) -> None:
    links = bare.get("/").json["links"]
    assert {"docs", "redoc", "openapi", "healthz", "readyz"} == set(links)
    for name, path in links.items():
        assert bare.get(path).status_code == (503 if name == "readyz" else 200)


def test_the_document_names_the_public_url_first_then_the_prefix_it_is_served_under(
    make_bare_app: Callable[..., Flask],
) -> None:
    """Clients made by a generator, and Postman, call the first; it must not be relative."""
    public = "https://accounts.example.com/accounts"
    client = client_of(make_bare_app(public_url=public))
    for prefix in ["/accounts", "", "/a/b"]:
        document = client.get("/v1/openapi.json", environ_overrides={"SCRIPT_NAME": prefix}).json
        assert document["servers"] == [{"url": public}, {"url": prefix or "/"}]
        validate(copy.deepcopy(document), cls=OpenAPIV31SpecValidator)


# DOMPurify before 3.4.13 has published faults (CVE-2026-75838; as of November 2026).
@pytest.mark.parametrize("package", ["swagger-ui", "redoc"])
def test_the_pages_libraries_carry_no_dompurify_with_a_known_fault(package: str) -> None:
    folder = ROOT / "backend" / "web" / "assets"
    [script] = (folder / package).glob("*.js")
    text = script.read_text("utf-8")
    [version] = re.findall(r'\bversion="([0-9.]+)",\w+\.removed=\[\]', text)
    assert tuple(map(int, version.split("."))) >= (3, 4, 13)
    [line] = re.findall(rf"^\| `{package}/`.*", (folder / "README.md").read_text("utf-8"), re.M)
    assert line.endswith(f"| {version} |")
    released = re.search(r"` ([0-9.]+) \|", line)[1]
    assert re.search(rf"""[:"'`]{re.escape(released)}["'`]""", text)
    assert {"LICENSE", f"{script.name}.LICENSE.txt"} <= {
        file.name for file in (folder / package).iterdir()
    }
