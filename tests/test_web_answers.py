"""What a view may return under `@blp.response`, and what the schema of an answer may hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, after_this_request, redirect, url_for
from flask.testing import FlaskClient
from marshmallow import fields
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from backend.web.access import public
from backend.web.api import Blueprint, page_of
from backend.web.fields import ResponseSchema

from .support.problems import assert_problem

blp = Blueprint("shapes", __name__, url_prefix="/shapes", description="Of answers.")


class Shape(ResponseSchema):
    """A shape."""

    sometimes = frozenset({"corners"})

    name = fields.String()
    corners = fields.Integer(attribute="edges")


@blp.route("/one")
@public
@blp.etag
@blp.response(200, Shape)
def one() -> dict[str, Any]:
    return {"name": "square", "edges": 4, "secret": "x"}


@blp.route("/one", methods=["PATCH"])
@public
@blp.etag
@blp.response(200, Shape)
def change_one() -> dict[str, Any]:
    """Change the shape"""
    blp.check_etag({"name": "square", "edges": 4}, Shape)
    return {"name": "square", "edges": 4}


@blp.route("/made", methods=["POST"])
@public
@blp.response(201, Shape)
def made() -> Any:
    return {"name": "point"}, {"X-Made": "yes"}


@blp.route("/elsewhere")
@public
@blp.response(200, Shape)
def elsewhere() -> Any:
    return redirect(url_for("shapes.one", _external=True))


@blp.route("/late")
@public
@blp.response(200, Shape)
def late() -> dict[str, Any]:
    after_this_request(remember_its_end)
    return {"name": "line"}


def remember_its_end(response: Response) -> Response:
    response.call_on_close(lambda: ended.append(response.status_code))
    return response


ended: list[int] = []


@pytest.fixture
def shapes(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    app = make_bare_app(public_url="https://id.example.com")
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)
    return app.test_client()


def test_members_come_from_their_attributes_and_others_stay_inside(shapes: FlaskClient) -> None:
    answer = shapes.get("/shapes/one")
    assert answer.json == {"name": "square", "corners": 4}
    assert shapes.get("/shapes/one", headers={"If-None-Match": answer.headers["ETag"]}).text == ""


def test_status_and_headers_are_those_of_the_route_and_the_view(shapes: FlaskClient) -> None:
    answer = shapes.post("/shapes/made")
    assert (answer.status_code, answer.headers["X-Made"]) == (201, "yes")
    assert answer.json == {"name": "point"}


def test_a_response_is_passed_on_and_links_lead_to_public_url(shapes: FlaskClient) -> None:
    answer = shapes.get("/shapes/elsewhere", headers={"Host": "evil.example"})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "https://id.example.com/shapes/one"


@pytest.mark.parametrize(
    ("method", "body"), [("GET", b'{"name":"square","corners":4}\n'), ("HEAD", b"")]
)
def test_the_length_is_told_once_with_and_without_the_body(
    shapes: FlaskClient, method: str, body: bytes
) -> None:
    answer = shapes.open("/shapes/one", method=method)
    assert (answer.headers.getlist("Content-Length"), answer.data) == (["30"], body)


def test_what_is_to_be_done_at_the_end_of_an_answer_is_done(shapes: FlaskClient) -> None:
    ended.clear()
    shapes.get("/shapes/late").close()
    assert ended == [200]


@pytest.mark.parametrize(
    "field",
    [fields.String(data_key="other"), fields.String(dump_default="x"), fields.Constant("x")],
    ids=["data key", "default", "constant"],
)
def test_what_an_answer_would_leave_out_is_refused_at_once(field: fields.Field) -> None:
    with pytest.raises(TypeError, match="named"):
        ResponseSchema.from_dict({"named": field})()


def test_lists_of_one_kind_share_the_schema_of_a_page() -> None:
    assert page_of(Shape) is page_of(Shape)


def test_what_if_match_asks_for_is_refused_by_codes_of_its_own(shapes: FlaskClient) -> None:
    etag = shapes.get("/shapes/one").headers["ETag"]
    assert_problem(shapes.patch("/shapes/one"), 428, "precondition_required")
    stale = shapes.patch("/shapes/one", headers={"If-Match": '"another"'})
    assert_problem(stale, 412, "precondition_failed")
    assert shapes.patch("/shapes/one", headers={"If-Match": etag}).json["name"] == "square"


def test_what_if_match_asks_for_is_documented(shapes: FlaskClient) -> None:
    document = shapes.get("/v1/openapi.json").json
    validate(copy.deepcopy(document), cls=OpenAPIV31SpecValidator)
    item = document["paths"]["/shapes/one"]
    assert {"200", "304"} <= set(item["get"]["responses"])
    assert not {"412", "428"} & set(item["get"]["responses"])
    assert {"200", "412", "428"} <= set(item["patch"]["responses"])
