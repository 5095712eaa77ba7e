"""Signing in: sessions, access and refresh tokens, and whom a credential identifies."""

from flask import Flask

from ..subject import Scope, Subject
from ..web.api import Api
from . import commands, jwks, password_page, routes, sessions


def init_app(app: Flask, api: Api) -> None:
    """Register the routes outside /v1: public keys, metadata and the password page."""
    api.register_blueprint(jwks.blp)
    password_page.init_app(app)


SUBJECT = Subject(
    name="auth",
    blueprints=(routes.blp,),
    init_app=init_app,
    commands=(commands.group,),
    scopes=(Scope("tokens:introspect", for_services=True),),
    audit_actions=(
        "login",
        "logout",
        "session.end",
        "session.grace",
        "session.reuse",
        "password.change",
        "password.forgot",
        "password.reset",
    ),
    maintenance=(sessions.prune,),
    secrets_in_use={"session": sessions.secrets_in_use},
)
