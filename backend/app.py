"""The subjects that the service consists of, and how an app is built from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import Flask

from . import (
    __version__,
    api_keys,
    audit,
    audit_chain,
    auth,
    cli,
    doctor,
    forward_auth,
    key_import,
    key_usage,
    mail,
    metrics,
    mfa,
    notices,
    throttling,
    users,
)
from .api_keys.scopes import define_scopes
from .audit.denials import deny
from .audit.service import define_actions
from .auth.guard import authorize, require_reserved_scopes
from .background.maintenance import HOUR, HOURLY_BATCH, PAUSE, at_most_every
from .background.periodic import PeriodicTasks
from .background.task_queue import ShuffledTasks, TaskQueue
from .background.write_behind import WriteBehind
from .core.metrics import Metrics
from .core.rate_limits import RateLimiter
from .core.settings import Settings
from .core.settings_checks import require_safe
from .crypto.access_tokens import AccessTokens
from .crypto.keyring import Keyring
from .crypto.passwords import PasswordHasher
from .db.database import open_database, release
from .mail.mailer import Mailer
from .mail.sender import Sender
from .notices.service import note_forwarded
from .services import Services
from .users import links
from .web import access, docs, health, openapi, parsing, problems
from .web.application import Application
from .web.middleware import RequestMiddleware

# What the service consists of. A subject may import those above it. Add yours at the end.
SUBJECTS = (
    mail.SUBJECT,
    notices.SUBJECT,
    audit.SUBJECT,
    audit_chain.SUBJECT,
    users.SUBJECT,
    throttling.SUBJECT,
    api_keys.SUBJECT,
    key_usage.SUBJECT,
    key_import.SUBJECT,
    auth.SUBJECT,
    mfa.SUBJECT,
    forward_auth.SUBJECT,
    metrics.SUBJECT,
    doctor.SUBJECT,
)
COMMANDS = [*cli.COMMANDS, *(command for each in SUBJECTS for command in each.commands)]

for each in SUBJECTS:
    define_actions(each.audit_actions)
    define_scopes(each.scopes)
    problems.define_codes(each.codes)


def create_app(settings: Settings | None = None) -> Flask:
    """Build an app from `settings`, or from the environment.

    Each call returns a separate app with its own database and secrets, and does not connect to
    anything yet. Raises SettingsError if the app would not be safe to serve.
    """
    service = create_services(settings)
    settings = service.settings

    app = Application(__package__, settings.public_url)
    app.extensions["backend"] = service
    app.config.update(MAX_CONTENT_LENGTH=parsing.MAX_BODY + 1, PROPAGATE_EXCEPTIONS=False)
    app.url_map.merge_slashes = False  # `//v1/x` is not `/v1/x`: answer 404, never redirect

    api = openapi.init_app(app, __version__)
    problems.init_app(app, deny)
    for subject in reversed(SUBJECTS):  # your own come first in the documentation
        for blueprint in subject.blueprints:
            api.register_blueprint(blueprint, url_prefix=f"/v1{blueprint.url_prefix}")
        if subject.init_app:
            subject.init_app(app, api)
    api.register_blueprint(health.blp)
    if settings.docs_enabled:
        docs.init_app(app, api)
    access.init_app(app, authorize)
    require_reserved_scopes(app)
    cli.init_app(app, COMMANDS)

    @app.teardown_request
    def _give_back_connection(error: BaseException | None) -> None:
        release(service.database)

    app.wsgi_app = RequestMiddleware(app.wsgi_app, service, note_forwarded)  # type: ignore[method-assign]
    return app


def create_services(settings: Settings | None = None) -> Services:
    """Build the services without routes, for guards in front of other apps (forward_auth/)."""
    settings = require_safe(settings or Settings.load())
    database, counters = open_database(settings), Metrics()

    def inside(work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `work` so that it runs inside the service, and releases its connection."""

        name = f"{work.__module__.split('.')[1]}.{work.__name__}"  # as in audit_chain.seal

        @functools.wraps(work)
        def wrapper(*args: Any) -> Any:
            with service.active():
                try:
                    return work(*args)
                except Exception:
                    service.metrics.chore_failed(name)
                    raise
                finally:
                    release(database)

        return wrapper

    def collected(field: str) -> tuple[Any, ...]:
        return tuple(each for subject in SUBJECTS for each in getattr(subject, field))

    write_behind = {
        write: WriteBehind(inside(write), merge)
        for subject in SUBJECTS
        for write, merge in subject.write_behind.items()
    }
    mailer = Mailer(settings, links.complete)
    sender = Sender(inside(mailer.send_due))
    service = Services(
        settings=settings,
        database=database,
        keyring=Keyring(settings),
        access_tokens=AccessTokens(settings),
        password_hasher=PasswordHasher(settings, counters),
        rate_limiter=RateLimiter(settings, counters),
        write_behind=write_behind,
        periodic_tasks=PeriodicTasks(
            *(queue.flush for queue in write_behind.values()),
            *(inside(work) for work in collected("periodic")),
            *(at_most_every(PAUSE, inside(task)) for task in collected("maintenance")),
            *(at_most_every(HOUR, inside(task), HOURLY_BATCH) for task in collected("hourly")),
            sender.start,
        ),
        tasks=TaskQueue(),
        shuffled_tasks=ShuffledTasks(),
        mailer=mailer,
        sender=sender,
        metrics=counters,
        subjects=SUBJECTS,
        second_steps=collected("second_steps"),
        session_checks=collected("session_checks"),
        on_verification=collected("on_verification"),
    )
    return service
