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
    """A scope that the service defines, and the owners whose API keys may have it.

    `area:*` means every scope in the area, including those that other services define.
    """

    name: str
    for_admins: bool = False
    for_services: bool = False  # only service accounts and administrators


@dataclass(frozen=True, slots=True)
class Target:
    """How to find the name for an id, and the id for a name, of one kind of audit target.

    `id_of` raises NotFound for an unknown name.
    """

    name_of: Callable[[UUID], str | None]
    id_of: Callable[[str], UUID] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Everything that one subject adds to the service. All fields except `name` are optional.

    - `blueprints` are served under /v1; `init_app(app, api)` registers any other routes.
    - `commands` are added to `flask --app wsgi`.
    - `scopes`, `audit_actions`, the `targets` of audit events, and error `codes` (with status and
      meaning) are the ones that the subject defines.
    - `write_behind` maps functions that write entries in batches to functions that merge two
      entries with the same key.
    - `periodic` functions are called every few seconds while there are requests.
    - `maintenance` and `hourly` functions take a limit, change at most that many rows, and return
      how many they changed. They are called every 20 seconds and every hour, and by `flask prune`
      until they return 0.
    - `warnings` return sentences for `flask doctor`.
    - `secrets_in_use` maps the name of a thing that depends on a SECRET_KEY to a function that
      counts these things by the key's id.
    - `second_steps` are called with a user whose password was right, and raise Failure to ask for
      more.
    - `session_checks` are called with the user of each session, and raise Failure to refuse it.
    - `on_verification` functions are called at each attempt to use an API key, with its id in hex
      and the outcome.
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
    on_verification: tuple[Callable[[str, str], None], ...] = ()
