"""Traps for a new subject: ids in a request for which there is no row, and times without a zone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import peewee as pw
import pytest
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import fields

from backend.core.identity import Identity
from backend.db import migrations
from backend.db.database import Model, atomic
from backend.users.models import User
from backend.web.access import actor, session_or_any_key
from backend.web.api import Blueprint
from backend.web.fields import Id, List, ResponseSchema, Schema, Timestamp

from .support.apps import service_of
from .support.openapi import NOTHING
from .support.people import Person, add_user, sign_in
from .support.problems import assert_problem

blp = Blueprint("papers", __name__, url_prefix="/papers", description="Papers in folders.")


class Folder(Model):
    """A folder of a user."""

    owner = pw.ForeignKeyField(User, on_delete="CASCADE")


class Paper(Model):
    """A paper in a folder, perhaps a copy of another one."""

    folder = pw.ForeignKeyField(Folder)
    copy_of = pw.ForeignKeyField("self", null=True)


class PaperSchema(ResponseSchema):
    """A paper."""

    id = Id()
    folder_id = Id()


class WritePaperSchema(Schema):
    """Write a paper."""

    folder_id = Id(required=True)
    copy_of = Id()


class MovePapersSchema(Schema):
    """Write a paper into each of these folders."""

    folders = List(Id(), most=5, required=True)


class FilePaperSchema(Schema):
    """Move a paper."""

    into = Id(required=True)


before_writing: list[Callable[[], None]] = []


@atomic
def write(actor: Identity, **paper: UUID) -> Paper:
    """Write a paper. What a test wants to happen first happens first."""
    for act in before_writing:
        act()
    return Paper.create(**paper)


@blp.route("/folders", methods=["POST"])
@session_or_any_key
@blp.response(201, ResponseSchema.from_dict({"id": Id()}, name="Folder"))
def make_folder() -> Folder:
    for act in before_writing:
        act()
    return Folder.create(owner=actor().user_id)


@blp.route("", methods=["POST"])
@session_or_any_key
@blp.arguments(WritePaperSchema)
@blp.response(201, PaperSchema)
def write_paper(paper: dict[str, UUID]) -> Paper:
    return write(actor(), **paper)


@blp.route("/many", methods=["POST"])
@session_or_any_key
@blp.arguments(MovePapersSchema)
@blp.response(204)
def write_many(papers: dict[str, Any]) -> None:
    Paper.insert_many([(folder,) for folder in papers["folders"]], [Paper.folder]).execute()


@blp.route("/<id:folder_id>/paper", methods=["POST"])
@session_or_any_key
@blp.response(201, PaperSchema)
def write_into(folder_id: UUID) -> Paper:
    return Paper.create(folder=folder_id)


@blp.route("/<id:paper_id>", methods=["PATCH"])
@session_or_any_key
@blp.arguments(FilePaperSchema)
@blp.response(204)
def move(query: dict[str, Any], paper_id: UUID) -> None:
    Paper.update(folder=query["into"]).where(Paper.id == paper_id).execute()


@blp.route("/lost", methods=["POST"])
@session_or_any_key
@blp.response(204)
def write_into_a_folder_of_our_own() -> None:
    Paper.create(folder=NOTHING)


@blp.route("/folders/<id:folder_id>", methods=["DELETE"])
@session_or_any_key
@blp.response(204)
def delete_folder(folder_id: UUID) -> None:
    Folder.delete().where(Folder.id == folder_id).execute()


@pytest.fixture
def papers(app: Flask, client: FlaskClient) -> Iterator[FlaskClient]:
    """A client of an app that also has folders and papers."""
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)
    database = service_of(app).database
    with service_of(app).active():
        database.create_tables([Folder, Paper])
        yield client
        before_writing.clear()
        database.drop_tables([Paper, Folder])
        database.close()


@pytest.fixture
def alice(papers: FlaskClient) -> Person:
    """A user with folders, signed in."""
    add_user(papers, "alice")
    return sign_in(papers, "alice")


def new_folder(person: Person) -> str:
    response = person.post("/papers/folders")
    assert response.status_code == 201, response.json
    return response.json["id"]


def test_an_unknown_id_in_the_body_is_a_fault_of_that_field(alice: Person) -> None:
    folder = new_folder(alice)
    paper = alice.post("/papers", {"folder_id": folder})
    assert paper.status_code == 201
    unknown = alice.post("/papers", {"folder_id": NOTHING})
    assert_problem(unknown, 422, "validation_error", "json.folder_id")
    assert unknown.json["errors"]["json"]["folder_id"] == ["There is no such resource."]
    unknown = alice.post("/papers", {"folder_id": folder, "copy_of": NOTHING})
    assert_problem(unknown, 422, "validation_error", "json.copy_of")


def test_an_unknown_id_is_found_in_a_list_and_under_another_name(alice: Person) -> None:
    folder = new_folder(alice)
    many = alice.post("/papers/many", {"folders": [folder, NOTHING]})
    assert_problem(many, 422, "validation_error", "json.folders")
    assert alice.post("/papers/many", {"folders": [folder, folder]}).status_code == 204
    paper = alice.post("/papers", {"folder_id": folder}).json["id"]
    moved = alice.patch(f"/papers/{paper}", {"into": NOTHING})
    assert_problem(moved, 422, "validation_error", "json.into")


def test_an_unknown_id_in_the_path_is_not_found(alice: Person) -> None:
    assert_problem(alice.post(f"/papers/{NOTHING}/paper"), 404, "not_found")
    assert alice.post(f"/papers/{new_folder(alice)}/paper").status_code == 201


def test_a_row_that_is_deleted_just_before_is_unknown_too(alice: Person) -> None:
    folder = new_folder(alice)
    before_writing.append(lambda: Folder.delete().where(Folder.id == folder).execute())
    late = alice.post("/papers", {"folder_id": folder})
    assert_problem(late, 422, "validation_error", "json.folder_id")


def test_a_caller_who_is_deleted_just_before_has_no_valid_credentials(alice: Person) -> None:
    before_writing.append(lambda: User.delete().where(User.id == alice.id).execute())
    assert_problem(alice.post("/papers/folders"), 401, "invalid_credentials")


def test_an_id_that_the_request_does_not_name_is_a_bug_of_ours(
    app: Flask, alice: Person, caplog: pytest.LogCaptureFixture
) -> None:
    plain = FlaskClient(app)  # which does not fail at a 500
    folder = new_folder(alice)
    assert alice.post("/papers", {"folder_id": folder}).status_code == 201
    lost = plain.post("/papers/lost", headers=alice.headers)
    assert_problem(lost, 500, "internal_error")
    with caplog.at_level("ERROR"):
        caplog.clear()
        still_used = plain.delete(f"/papers/folders/{folder}", headers=alice.headers)
    assert_problem(still_used, 500, "internal_error")
    [record] = caplog.records
    assert isinstance(record.exc_info[1], pw.IntegrityError)


@pytest.mark.parametrize(
    "field",
    [
        fields.DateTime(),
        fields.AwareDateTime(),
        fields.NaiveDateTime(),
        fields.List(fields.DateTime()),
        fields.Dict(values=fields.DateTime()),
    ],
    ids=["time", "aware", "naive", "list", "dict"],
)
def test_a_time_without_a_zone_in_an_answer_is_refused_when_the_app_is_built(
    field: fields.Field,
) -> None:
    late = ResponseSchema.from_dict({"due_at": field}, name="LateSchema")
    with pytest.raises(TypeError, match=r"LateSchema\.due_at: use Timestamp"):
        blp.response(200, late)
    fine = {"at": Timestamp(), "all": fields.List(Timestamp()), "by": fields.Dict()}
    ResponseSchema.from_dict(fine)()


def test_a_column_for_times_without_a_zone_is_refused_when_it_is_declared() -> None:
    with pytest.raises(TypeError, match=r"Late\.due_at: use UTCDateTimeField"):
        type("Late", (Model,), {"due_at": pw.DateTimeField()})


def test_every_foreign_key_says_what_a_deletion_does() -> None:
    for model in migrations.models():
        for key in model._meta.refs:
            assert key.on_delete, f"{model.__name__}.{key.name}: give on_delete"
