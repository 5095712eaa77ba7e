"""Subject: what one folder adds to the service. `app.py` lists them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import click

from .background.write_behind import Merge


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope of the service's own, and which owners of API keys may hold it.

    `area:*` stands for all scopes of an area, including those of other services.
    """

    name: str
    for_admins: bool = False
    for_services: bool = False  # only service accounts, and administrators


@dataclass(frozen=True, slots=True)
class Target:
    """How people name a kind of thing that audit events are about: both ways between id and name.

    `id_of` raises NotFound for an unknown name.
    """

    name_of: Callable[[UUID], str | None]
    id_of: Callable[[str], UUID] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A plug. Every field except the name is optional, and nothing else has to know the subject.

    - `blueprints` are served under /v1; `init_app(app, api)` registers other routes.
    - `commands` are added to `flask --app wsgi`.
    - `scopes`, `codes` of errors with their status and meaning, `audit_actions`, and `targets` of
      audit events: its own ones.
    - `write_behind`: functions that write notes in batches, and how two notes of a key are merged.
    - `periodic`: called every few seconds while there are requests.
    - `hourly`, `maintenance`: called with the most rows to change, every hour and every 20 seconds,
      until they return 0.
    - `warnings`: return sentences for `flask doctor`.
    - `secrets_in_use`: the thing whose secrets depend on a SECRET_KEY, and a function that counts
      them by the key's id.
    - `second_steps`: called with a user whose password was right; raise Failure to ask for more.
    - `session_checks`: called with the user of each session; raise Failure to refuse.
    - `verified`: called with the id, in hex, and the outcome of each API key that is presented.
    """

    name: str
    blueprints: tuple[Any, ...] = ()
    init_app: Callable[[Any, Any], None] | None = None
    commands: tuple[click.Command, ...] = ()
    scopes: tuple[Scope, ...] = ()
    codes: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    audit_actions: tuple[str, ...] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    write_behind: Mapping[Callable[[dict[Any, Any]], None], Merge] = field(default_factory=dict)
    periodic: tuple[Callable[[], object], ...] = ()
    hourly: tuple[Callable[[int], int], ...] = ()
    maintenance: tuple[Callable[[int], int], ...] = ()
    warnings: tuple[Callable[[], list[str]], ...] = ()
    secrets_in_use: Mapping[str, Callable[[], dict[str, int]]] = field(default_factory=dict)
    second_steps: tuple[Callable[[Any], None], ...] = ()
    session_checks: tuple[Callable[[Any], None], ...] = ()
    verified: tuple[Callable[[str, str], None], ...] = ()
