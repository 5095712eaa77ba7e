"""FastAPI with SQLModel and PyJWT, as in its tutorial; the user is read on each request.

`python app.py` creates the database and prints the requests of each workload.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import bcrypt
import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import Engine, event
from sqlmodel import Field, Session, SQLModel, create_engine, select

SECRET = "benchmarks: of no use elsewhere " * 2

app = FastAPI()
bearer = OAuth2PasswordBearer(tokenUrl="login")
engine: Engine = create_engine(f"sqlite:///{os.environ['DATABASE']}")


@event.listens_for(engine, "connect")
def _wal(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=wal")


class UserPublic(SQLModel):
    """The user, as `me` shows them."""

    id: int | None = Field(default=None, primary_key=True)
    username: str = Field(unique=True)
    email: str
    role: str = "user"
    is_active: bool = True
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class User(UserPublic, table=True):
    """A user."""

    password_hash: bytes


class Credentials(SQLModel):
    """The body of a sign-in."""

    username: str
    password: str


def _session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def _sign(user: User) -> str:
    claims = {"sub": str(user.id), "exp": datetime.now(UTC) + timedelta(days=1)}
    return jwt.encode(claims, SECRET, "HS256")


def _caller(
    token: Annotated[str, Depends(bearer)], session: Annotated[Session, Depends(_session)]
) -> User:
    try:
        claims = jwt.decode(token, SECRET, ["HS256"], options={"require": ["sub", "exp"]})
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    user = session.get(User, int(claims["sub"]))
    if user is None or not user.is_active:
        raise HTTPException(401)
    return user


@app.get("/me")
def me(user: Annotated[User, Depends(_caller)]) -> UserPublic:
    """The caller."""
    return user


@app.post("/login")
def login(given: Credentials, session: Annotated[Session, Depends(_session)]) -> dict[str, str]:
    """A token for a name and a password."""
    user = session.exec(select(User).where(User.username == given.username)).first()
    if user is None or not bcrypt.checkpw(given.password.encode(), user.password_hash):
        raise HTTPException(401)
    return {"access_token": _sign(user)}


def prepare() -> dict[str, Any]:
    """Create the table and a user; return {workload: request}."""
    password = "correct horse battery staple"
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(12))
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        user = User(username="alice", email="alice@example.com", password_hash=hashed)
        session.add(user)
        session.commit()
        headers = {"Authorization": f"Bearer {_sign(user)}"}
    return {
        "me by token": {"path": "/me", "headers": headers},
        "login": {"path": "/login", "json": {"username": "alice", "password": password}},
    }


if __name__ == "__main__":
    print(json.dumps(prepare()))
