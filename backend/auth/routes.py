"""/v1/auth: signing in and out, accounts by registration, and who one is."""

from typing import Any
from uuid import UUID

from flask import url_for

from ..core.identity import Identity
from ..users import service as users
from ..users.models import User
from ..users.schemas import RegisterSchema, UserSchema
from ..web.access import (
    actor,
    admin,
    as_client,
    before_enrolment,
    public,
    public_hashing,
    session,
    session_or_any_key,
)
from ..web.api import Blueprint, PageQuery, page, page_of
from . import service, tokens
from .schemas import (
    ChangeMeSchema,
    ChangePasswordSchema,
    ConfirmEmailSchema,
    ForgotSchema,
    LoginMfaSchema,
    LoginSchema,
    MeSchema,
    RefreshSchema,
    ResetSchema,
    SessionSchema,
    TokensSchema,
)
from .token_schemas import IntrospectionSchema, PresentedTokenSchema

blp = Blueprint("auth", __name__, url_prefix="/auth", description="Signing in, and who one is")


@blp.route("/register", methods=["POST"])
@admin("users:write")
@blp.arguments(RegisterSchema)
@blp.response(201, UserSchema)
@blp.fails("session_required", "username_taken", "email_taken", "password_too_weak")
def register(account: dict[str, Any]) -> tuple[User, int, dict[str, str]]:
    """Create an account"""
    user = users.create(actor(), **account)
    return user, 201, {"Location": url_for("users.get_user", user_id=user.id)}


@blp.route("/login", methods=["POST"])
@public_hashing
@blp.arguments(LoginSchema)
@blp.response(200, TokensSchema)
@blp.fails("invalid_credentials", "mfa_required", "rate_limited")
def login(credentials: dict[str, str]) -> dict[str, Any]:
    """Sign in with username or e-mail address, and password"""
    return service.login(**credentials)


@blp.route("/login/mfa", methods=["POST"])
@public
@blp.arguments(LoginMfaSchema)
@blp.response(200, TokensSchema)
@blp.fails("invalid_credentials", "rate_limited")
def login_mfa(step: dict[str, str]) -> dict[str, Any]:
    """Sign in: the second step, with a code of the second factor"""
    return service.login_mfa(**step)


@blp.route("/refresh", methods=["POST"])
@public
@blp.arguments(RefreshSchema)
@blp.response(200, TokensSchema)
@blp.fails("invalid_credentials")
def refresh(body: dict[str, str]) -> dict[str, Any]:
    """Exchange a refresh token for fresh tokens"""
    return service.refresh(body["refresh_token"])


@blp.route("/logout", methods=["POST"])
@before_enrolment
@session
@blp.response(204)
def logout() -> None:
    """End the calling session"""
    service.logout(actor())


@blp.route("/logout-all", methods=["POST"])
@session
@blp.response(204)
def logout_all() -> None:
    """End all of one's sessions"""
    service.logout_all(actor())


@blp.route("/sessions")
@session
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(SessionSchema))
def list_sessions(query: dict[str, Any]) -> dict[str, Any]:
    """List one's own sessions, newest first"""
    return page(service.sessions(actor(), **query))


@blp.route("/sessions/<id:session_id>", methods=["DELETE"])
@session
@blp.response(204)
def end_session(session_id: UUID) -> None:
    """End one of one's own sessions"""
    service.end_session(actor(), session_id)


@blp.route("/me")
@before_enrolment
@session_or_any_key
@blp.response(200, MeSchema)
def me() -> dict[str, Any]:
    """Who is calling, by session or by API key"""
    return _me(actor())


@blp.route("/me", methods=["PATCH"])
@session
@blp.arguments(ChangeMeSchema)
@blp.response(200, UserSchema)
@blp.fails("wrong_password", "rate_limited", "username_taken", "conflict")
def change_me(changes: dict[str, str]) -> User:
    """Change your own username, three times a day, or e-mail address, which a link confirms"""
    return service.change_me(actor(), **changes)


@blp.route("/password", methods=["POST"])
@session
@blp.arguments(ChangePasswordSchema)
@blp.response(204)
@blp.fails("wrong_password", "rate_limited", "password_too_weak")
def change_password(passwords: dict[str, str]) -> None:
    """Change one's own password; all other sessions end"""
    service.change_password(actor(), **passwords)


@blp.route("/password/forgot", methods=["POST"])
@public
@blp.arguments(ForgotSchema)
@blp.response(202)
def forgot_password(body: dict[str, str]) -> None:
    """Have a link mailed that sets a password; the answer is the same for every address"""
    service.forgot_password(body["email"])


@blp.route("/password/reset", methods=["POST"])
@public
@blp.arguments(ResetSchema)
@blp.response(204)
@blp.fails("invalid_token", "password_too_weak")
def reset_password(body: dict[str, str]) -> None:
    """Set a password by the link of a mail; all sessions end"""
    service.reset_password(**body)


@blp.route("/email/confirm", methods=["POST"])
@public
@blp.arguments(ConfirmEmailSchema)
@blp.response(204)
@blp.fails("invalid_token", "email_taken")
def confirm_email(body: dict[str, str]) -> None:
    """Confirm a new e-mail address by the link that was mailed to it"""
    service.confirm_email(body["token"])


@blp.route("/introspect", methods=["POST"])
@as_client
@admin("tokens:introspect")
@blp.arguments(PresentedTokenSchema, location="form")
@blp.response(200, IntrospectionSchema)
def introspect_token(asked: dict[str, str]) -> dict[str, Any]:
    """Tell what a token or an API key is, and whether it is active (RFC 7662)"""
    return tokens.introspect(actor(), asked["token"])


@blp.route("/revoke", methods=["POST"])
@public
@blp.arguments(PresentedTokenSchema, location="form")
@blp.response(200)
def revoke_token(held: dict[str, str]) -> None:
    """End the session of the token that one holds, or revoke the API key (RFC 7009)"""
    tokens.revoke(held["token"])


def _me(identity: Identity) -> dict[str, Any]:
    """The account with its `auth`; a session's has no key_id, a key's no session_id."""
    auth: dict[str, Any] = {"method": identity.method, "scopes": None}
    if identity.scopes is None:
        auth["session_id"] = identity.session_id
    else:
        auth |= {"key_id": identity.key_id, "scopes": sorted(identity.scopes)}
    return {**identity.user._asdict(), "auth": auth}
