"""The table of contents of the service: its parts, in the order in which they are assembled."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from flask import Flask

from . import __version__, cli, upkeep
from .api_keys import routes as api_keys
from .api_keys.service import write_last_used
from .api_keys.usage import write_usage
from .audit import denials
from .audit import routes as audit
from .audit.chain import seal
from .audit.denials import write_denials
from .auth import jwks, password_page
from .auth import routes as auth
from .auth.enforcement import enforce
from .background.periodic import PeriodicTasks
from .background.task_queue import Lookups, TaskQueue
from .background.write_behind import WriteBehind
from .core.metrics import Metrics
from .core.rate_limits import RateLimiter
from .core.settings import Settings
from .crypto.access_tokens import AccessTokens
from .crypto.keyring import Keyring
from .crypto.passwords import PasswordHasher
from .db.database import open_database, release
from .forward_auth import routes as forward_auth
from .mail.mailer import Mailer
from .mail.sender import Sender
from .mfa import routes as mfa
from .notices.service import note_forwarded
from .services import Services
from .users import links
from .users import routes as users
from .web import access, docs, health, metrics, openapi, parsing, problems
from .web.application import Application
from .web.middleware import RequestMiddleware

# The subjects, in the order in which the API documentation lists them. Add yours here.
V1 = (auth.blp, mfa.blp, users.blp, api_keys.blp, audit.blp)


def create_app(settings: Settings | None = None) -> Flask:
    """Build an app from `settings`, or from the environment.

    Each call returns a separate app with its own database and secrets. Nothing is connected or
    written yet. Raises SettingsError if the app would not be safe to serve.
    """
    service = create_services(settings)
    settings = service.settings

    app = Application(__package__, settings.public_url)
    app.extensions["backend"] = service
    app.config.update(MAX_CONTENT_LENGTH=parsing.MAX_BODY + 1, PROPAGATE_EXCEPTIONS=False)
    app.url_map.merge_slashes = False  # `//v1/x` is not `/v1/x`: answer 404, never redirect

    api = openapi.init_app(app, __version__)
    problems.init_app(app, denials.deny)
    for blueprint in V1:
        api.register_blueprint(blueprint, url_prefix=f"/v1{blueprint.url_prefix}")
    forward_auth.init_app(app, api)
    api.register_blueprint(health.blp)
    api.register_blueprint(jwks.blp)
    if settings.metrics_enabled:
        api.register_blueprint(metrics.blp)
    password_page.init_app(app)
    if settings.docs_enabled:
        docs.init_app(app, api)
    access.init_app(app, enforce)
    cli.init_app(app)

    @app.teardown_request
    def _give_back_connection(error: BaseException | None) -> None:
        release(service.database)

    app.wsgi_app = RequestMiddleware(app.wsgi_app, service, note_forwarded)  # type: ignore[method-assign]
    return app


def create_services(settings: Settings | None = None) -> Services:
    """Build the services without the routes, for a guard in front of other apps: forward_auth/."""
    settings = (settings or Settings.load()).check()
    database, counted = open_database(settings), Metrics()

    def inside(work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `work` to run as part of the service and to release its connection afterwards."""

        @functools.wraps(work)
        def wrapper(*args: Any) -> Any:
            with service.active():
                try:
                    return work(*args)
                except Exception:
                    service.metrics.chore_failed(work.__name__)
                    raise
                finally:
                    release(database)

        return wrapper

    last_used = WriteBehind(inside(write_last_used))
    usage = WriteBehind(inside(write_usage), operator.add)
    denials = WriteBehind(inside(write_denials), operator.add)
    prune = upkeep.seldom(inside(upkeep.prune))
    tend = upkeep.seldom(inside(upkeep.tend), upkeep.HOUR)
    mailer = Mailer(settings, links.complete)
    sender = Sender(inside(mailer.send_due))
    service = Services(
        settings=settings,
        database=database,
        keyring=Keyring(settings),
        access_tokens=AccessTokens(settings),
        password_hasher=PasswordHasher(settings, counted),
        rate_limiter=RateLimiter(settings, counted),
        last_used=last_used,
        usage=usage,
        denials=denials,
        periodic_tasks=PeriodicTasks(
            last_used.flush,
            usage.flush,
            denials.flush,
            inside(seal),
            prune,
            tend,
            sender.start,
        ),
        tasks=TaskQueue(),
        lookups=Lookups(),
        mailer=mailer,
        sender=sender,
        metrics=counted,
    )
    return service
