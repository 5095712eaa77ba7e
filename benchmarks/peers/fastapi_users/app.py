"""FastAPI with fastapi-users and SQLAlchemy; its JWT strategy reads the user on each request.

`python app.py` creates the database and prints the requests of each workload.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.password import PasswordHelper
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from pwdlib import PasswordHash
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

SECRET = "benchmarks: of no use elsewhere " * 2

engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ['DATABASE']}")
sessions = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def _wal(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=wal")


class Base(DeclarativeBase):
    """The base of the tables."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """A user."""


class Manager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """Finds and checks users; bcrypt with 12 rounds instead of Argon2."""


async def _session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(_session)]


async def _manager(session: Session) -> Manager:
    helper = PasswordHelper(PasswordHash((BcryptHasher(rounds=12),)))
    return Manager(SQLAlchemyUserDatabase(session, User), helper)


def _strategy() -> JWTStrategy:
    return JWTStrategy(SECRET, lifetime_seconds=86400)


backend = AuthenticationBackend("jwt", BearerTransport("login"), _strategy)
users = FastAPIUsers[User, UUID](_manager, [backend])
caller = users.current_user(active=True)

app = FastAPI()
app.include_router(users.get_auth_router(backend))


@app.get("/me")
async def me(user: Annotated[User, Depends(caller)]) -> schemas.BaseUser[UUID]:
    """The caller."""
    return user


async def prepare() -> dict[str, Any]:
    """Create the table and a user; return {workload: request}."""
    email, password = "alice@example.com", "correct horse battery staple"
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions() as session:
        manager = await _manager(session)
        user = await manager.create(schemas.BaseUserCreate(email=email, password=password))
        token = await _strategy().write_token(user)
    await engine.dispose()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    login = urlencode({"username": email, "password": password})
    return {
        "me by token": {"path": "/me", "headers": {"Authorization": f"Bearer {token}"}},
        "login": {"path": "/login", "headers": form, "body": login},
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(prepare())))
