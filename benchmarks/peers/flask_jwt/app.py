"""Flask with flask-jwt-extended and SQLAlchemy; the user is read on each request.

`python app.py` creates the database and prints the requests of each workload.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    current_user,
    get_jwt_identity,
    jwt_required,
)
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event, select
from sqlalchemy.orm import Mapped, mapped_column

app = Flask(__name__)
app.config.update(
    JWT_SECRET_KEY="benchmarks: of no use elsewhere " * 2,
    JWT_ACCESS_TOKEN_EXPIRES=timedelta(days=1),
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{os.environ['DATABASE']}",
)
jwt = JWTManager(app)
db = SQLAlchemy(app)


class User(db.Model):  # type: ignore[name-defined,misc]
    """A user."""

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str]
    password_hash: Mapped[bytes]
    role: Mapped[str] = mapped_column(default="user")
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


def _wal(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=wal")


with app.app_context():
    event.listen(db.engine, "connect", _wal)


@jwt.user_lookup_loader
def _user(_: dict[str, Any], claims: dict[str, Any]) -> User | None:
    user = db.session.get(User, int(claims["sub"]))
    return user if user and user.is_active else None


@app.get("/me")
@jwt_required()
def me() -> ResponseReturnValue:
    """The caller."""
    names = ("id", "username", "email", "role", "is_active")
    created_at = current_user.created_at.isoformat()
    return {name: getattr(current_user, name) for name in names} | {"created_at": created_at}


@app.post("/login")
def login() -> ResponseReturnValue:
    """Tokens for a name and a password."""
    user = db.session.scalar(select(User).where(User.username == request.json["username"]))
    password = request.json["password"].encode()
    if not user or not user.is_active or not bcrypt.checkpw(password, user.password_hash):
        return {"error": "invalid credentials"}, 401
    return {
        "access_token": create_access_token(str(user.id)),
        "refresh_token": create_refresh_token(str(user.id)),
    }


@app.post("/refresh")
@jwt_required(refresh=True)
def refresh() -> ResponseReturnValue:
    """A fresh access token."""
    return {"access_token": create_access_token(get_jwt_identity())}


def prepare() -> dict[str, Any]:
    """Create the table and a user; return {workload: request}."""
    password = "correct horse battery staple"
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(12))
    with app.app_context():
        db.create_all()
        db.session.add(User(username="alice", email="alice@example.com", password_hash=hashed))
        db.session.commit()
        bearer = {"Authorization": f"Bearer {create_access_token('1')}"}
        renewal = {"Authorization": f"Bearer {create_refresh_token('1')}"}
    login = {"username": "alice", "password": password}
    return {
        "me by token": {"path": "/me", "headers": bearer},
        "login": {"path": "/login", "json": login},
        "refresh": {"path": "/refresh", "headers": renewal, "json": {}},
    }


if __name__ == "__main__":
    print(json.dumps(prepare()))
