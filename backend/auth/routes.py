"""/v1/auth: signing in and out, registering accounts, and your own account."""

from typing import Any
from uuid import UUID

from flask import url_for

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
from . import introspection, refresh_tokens, service, sessions
from .schemas import (
    ChangeMeSchema,
    ChangePasswordSchema,
    ConfirmEmailSchema,
    ForgotSchema,
    LoginSchema,
    MeSchema,
    RefreshSchema,
    ResetSchema,
    SessionSchema,
    TokensSchema,
)
from .token_schemas import IntrospectionSchema, PresentedTokenSchema

blp = Blueprint("auth", __name__, url_prefix="/auth", description="Signing in, and your account")


@blp.route("/register", methods=["POST"])
@admin("users:write")
@blp.arguments(RegisterSchema)
@blp.response(201, UserSchema)
@blp.fails("session_required", "username_taken", "email_taken", "password_too_weak")
def register(account: dict[str, Any]) -> tuple[User, int, dict[str, str]]:
    """Create an account

    If you send no password for a person, they are mailed a link to choose one. A service account
    has no password and only uses API keys. Only an administrator's session can create another
    administrator.
    """
    user = users.create(actor(), **account)
    return user, 201, {"Location": url_for("users.get_user", user_id=user.id)}


@blp.route("/login", methods=["POST"])
@public_hashing
@blp.arguments(LoginSchema)
@blp.response(200, TokensSchema)
@blp.fails("invalid_credentials", "mfa_required", "rate_limited")
def login(credentials: dict[str, str]) -> dict[str, Any]:
    """Sign in with a username or e-mail address, and a password

    Returns the tokens of a new session. If the account has a second factor, the answer is 401
    `mfa_required`, with an `mfa_token` for the second step. Beyond MAX_SESSIONS_PER_USER, the least
    recently used session ends.
    """
    return service.login(**credentials)


@blp.route("/refresh", methods=["POST"])
@public
@blp.arguments(RefreshSchema)
@blp.response(200, TokensSchema)
@blp.fails("invalid_credentials")
def refresh(body: dict[str, str]) -> dict[str, Any]:
    """Exchange a refresh token for new tokens

    The new refresh token replaces the one you sent, which keeps working for a few seconds so that
    parallel requests agree. After that, using it ends the session: it may have been stolen.
    """
    return refresh_tokens.refresh(body["refresh_token"])


@blp.route("/logout", methods=["POST"])
@before_enrolment
@session
@blp.response(204)
def logout() -> None:
    """End the session that you are using

    Its access token and refresh token stop working immediately.
    """
    sessions.logout(actor())


@blp.route("/logout-all", methods=["POST"])
@session
@blp.response(204)
def logout_all() -> None:
    """End all your sessions

    This includes the one that you are using. Your API keys keep working.
    """
    sessions.logout_all(actor())


@blp.route("/sessions")
@session
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(SessionSchema))
def list_sessions(query: dict[str, Any]) -> dict[str, Any]:
    """List your sessions, newest first

    Returns a page of the sessions that have not ended; `current` marks the one you are using.
    """
    return page(sessions.list_sessions(actor(), **query))


@blp.route("/sessions/<id:session_id>", methods=["DELETE"])
@session
@blp.response(204)
def end_session(session_id: UUID) -> None:
    """End one of your sessions

    Its access token and refresh token stop working immediately.
    """
    sessions.end_session(actor(), session_id)


@blp.route("/me")
@before_enrolment
@session_or_any_key
@blp.response(200, MeSchema)
def me() -> dict[str, Any]:
    """Get your account and the credential of this request

    Works with a session and with any API key, whatever its scopes. `auth` describes the credential.
    """
    return service.describe(actor())


@blp.route("/me", methods=["PATCH"])
@session
@blp.arguments(ChangeMeSchema)
@blp.response(200, UserSchema)
@blp.fails("wrong_password", "rate_limited", "username_taken", "conflict")
def change_me(changes: dict[str, str]) -> User:
    """Change your username or e-mail address

    You can change your username three times a day. A new e-mail address takes effect when you
    confirm it with the link that is mailed to it.
    """
    return service.change_me(actor(), **changes)


@blp.route("/password", methods=["POST"])
@session
@blp.arguments(ChangePasswordSchema)
@blp.response(204)
@blp.fails("wrong_password", "rate_limited", "password_too_weak")
def change_password(passwords: dict[str, str]) -> None:
    """Change your password

    All your other sessions end. Your API keys keep working.
    """
    service.change_password(actor(), **passwords)


@blp.route("/password/forgot", methods=["POST"])
@public
@blp.arguments(ForgotSchema)
@blp.response(202)
def forgot_password(body: dict[str, str]) -> None:
    """Request a link to set a new password

    If an active account has this address, a link is mailed to it within seconds. The answer is the
    same for every address.
    """
    service.forgot_password(body["email"])


@blp.route("/password/reset", methods=["POST"])
@public
@blp.arguments(ResetSchema)
@blp.response(204)
@blp.fails("invalid_token", "password_too_weak")
def reset_password(body: dict[str, str]) -> None:
    """Set a password with the link from an e-mail

    A link works once, but can be used again if the password was refused as too weak. All sessions
    of the account end.
    """
    service.reset_password(**body)


@blp.route("/email/confirm", methods=["POST"])
@public
@blp.arguments(ConfirmEmailSchema)
@blp.response(204)
@blp.fails("invalid_token", "email_taken")
def confirm_email(body: dict[str, str]) -> None:
    """Confirm a new e-mail address with the link that was mailed to it

    A link works once. The former address is notified by e-mail.
    """
    service.confirm_email(body["token"])


@blp.route("/introspect", methods=["POST"])
@as_client
@admin("tokens:introspect")
@blp.arguments(PresentedTokenSchema, location="form")
@blp.response(200, IntrospectionSchema)
def introspect_token(form: dict[str, str]) -> dict[str, Any]:
    """Introspect a token or an API key (RFC 7662)

    Returns whether it is active and, if so, what it is. This does not count as a use. A key with
    `allowed_ips` is never active here, since its caller's address is unknown: verify it with
    `POST /v1/api-keys/verify`.
    """
    return introspection.introspect(actor(), form["token"])


@blp.route("/revoke", methods=["POST"])
@public
@blp.arguments(PresentedTokenSchema, location="form")
@blp.response(200)
def revoke_token(form: dict[str, str]) -> None:
    """Revoke a token or an API key that you have (RFC 7009)

    You do not have to sign in. An access or refresh token ends its session; an API key is revoked
    with all keys made with it. The answer is the same if there is no such token.
    """
    introspection.revoke(form["token"])
