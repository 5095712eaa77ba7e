"""The commands of `flask --app wsgi`: thin, they call services.

What a person got wrong is told in a sentence on stderr with exit code 1, never as a traceback.
Secrets come by prompt or standard input, never as arguments, which other users of the machine see.
"""

from __future__ import annotations

import functools
import json
import secrets
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

import click
from flask import Flask, current_app
from flask.cli import AppGroup, FlaskGroup, with_appcontext
from marshmallow import Schema, ValidationError

from . import upkeep
from .api_keys import service as keys
from .api_keys.schemas import ApiKeySchema, CreateKeySchema
from .audit import chain
from .audit import service as audit
from .audit.schemas import AuditEventSchema, SealedEventSchema
from .auth import service as auth
from .core import context, doctor, migrations, signing_keys, tokens
from .core.context import Service
from .core.database import is_unavailable, release
from .core.errors import Conflict, Failure, NotFound
from .core.identity import CONSOLE
from .core.settings import Settings, SettingsError
from .mfa import service as mfa
from .notices import service as notices
from .users import service as users
from .users.models import User
from .users.schemas import RegisterSchema, UserSchema
from .web import admission

db_group = AppGroup("db", help="The database and its migrations.")
users_group = AppGroup("users", help="Accounts.")
keys_group = AppGroup("keys", help="API keys.")
audit_group = AppGroup("audit", help="The audit trail.")
tokens_group = AppGroup("tokens", help="The key pairs that sign access tokens.")


def is_command() -> bool:
    """True inside of one of our commands; not in those of Flask that serve, such as `flask run`."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, FlaskGroup)


def init_app(app: Flask) -> None:
    """Add the commands to the app's command line."""
    for command in (
        db_group,
        users_group,
        keys_group,
        audit_group,
        tokens_group,
        prune_command,
        doctor_command,
    ):
        app.cli.add_command(command)


def refusing_app(refusal: SettingsError) -> Flask:
    """An app that cannot serve: each of its commands says why, as doctor would.

    Those on tokens work: one of them makes the file without which an app may refuse to start.
    """
    app = Flask(__name__)

    def refuse(rest: Any) -> NoReturn:
        _fail(*refusal.problems, word="fatal")

    for name in ("db", "users", "keys", "audit", "prune", "doctor"):
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
        command = click.Command(name, callback=refuse, params=[rest], context_settings=anything)
        app.cli.add_command(command)
    app.cli.add_command(tokens_group)
    return app


def _fail(*sentences: str, word: str = "Error") -> NoReturn:
    for sentence in sentences:
        click.echo(f"{word}: {sentence}", err=True)
    sys.exit(1)


def _inside(command: Callable[..., None]) -> Callable[..., None]:
    """Run the command inside of the service, and tell refusals in sentences."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        service: Service = current_app.extensions["backend"]
        with service.active():
            try:
                command(*args, **kwargs)
            except ValidationError as refusal:
                _fail(*_sentences(refusal.normalized_messages()))
            except Failure as refusal:
                faults: Any = (refusal.errors or {}).get("json", {})
                _fail(*(_sentences(faults) or [refusal.detail]))
            except migrations.MigrationError as refusal:
                _fail(str(refusal))
            except Exception as error:
                if not is_unavailable(error):
                    raise
                _fail(f"the database does not answer: {str(error).strip()}")
            finally:
                release(service.database)

    return wrapper


def _sentences(faults: dict[str, Any]) -> list[str]:
    return [f"{name}: {text}" for name, said in faults.items() for text in admission.flat(said)]


# --- db ---


@db_group.command()
@_inside
def upgrade() -> None:
    """Apply all pending migrations. Safe to run from several processes at once."""
    done = migrations.upgrade(context.service().database)
    click.echo("\n".join(f"applied {name}" for name in done) or "The database is up to date.")


@db_group.command(context_settings={"ignore_unknown_options": True})
@click.argument("target", default="-1")
@_inside
def downgrade(target: str) -> None:
    """Undo migrations until TARGET is the newest; -1, the default, undoes one."""
    for name in migrations.downgrade(context.service().database, target):
        click.echo(f"undone {name}")


@db_group.command()
@click.option("-m", "--message", required=True, help="Why; becomes the name and first line.")
@_inside
def revision(message: str) -> None:
    """Write the migration that leads to the models as they are now. Read it before you use it."""
    path = migrations.revision(context.service().database, message)
    click.echo(f"written {path}" if path else "The models match the migrations.")


@db_group.command()
@_inside
def current() -> None:
    """Print the newest applied migration."""
    done = migrations.applied(context.service().database)
    click.echo(done[-1] if done else "none")


@db_group.command()
@_inside
def history() -> None:
    """List all migrations, the applied ones with an x."""
    done = set(migrations.applied(context.service().database))
    for name in migrations.known():
        click.echo(f"[{'x' if name in done else ' '}] {name}")


@db_group.command()
@click.argument("name")
@_inside
def stamp(name: str) -> None:
    """Record NAME and all before it as applied, without running them."""
    migrations.stamp(context.service().database, name)
    click.echo(f"stamped {name}")


@db_group.command()
@_inside
def check() -> None:
    """Fail if the models differ from the migrations."""
    difference = migrations.drift(context.service().database)
    if difference:
        click.echo(difference)
        _fail("the models differ from the migrations; `flask db revision` writes what is missing.")
    click.echo("The models match the migrations.")


# --- users ---


@users_group.command()
@_inside
def bootstrap() -> None:
    """Make the first administrator, unless there is one."""
    if users.admins().exists():
        click.echo("There is an administrator already.")
        return
    settings = context.settings()
    password = settings.admin_password
    if not password:
        if settings.strict and not sys.stdout.isatty():
            _fail("ADMIN_PASSWORD is not set, and there is no terminal to show a generated one on.")
        password = secrets.token_urlsafe(18)
    account = {"username": settings.admin_username, "email": settings.admin_email}
    try:
        users.create(CONSOLE, **_load(RegisterSchema, account), password=password, role="admin")
    except Conflict:
        if not users.admins().exists():
            raise
        click.echo("There is an administrator already.")  # of another process, just now
        return
    click.echo(f"First administrator: {settings.admin_username}")
    if not settings.admin_password:
        click.echo(f"Password:            {password}   (shown this once)")


@users_group.command()
@click.argument("username")
@click.argument("email", required=False)
@click.option("--admin", is_flag=True, help="Give the role admin.")
@click.option("--service", is_flag=True, help="A service account, which has no password.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@_inside
def create(
    username: str, email: str | None, *, admin: bool, service: bool, password_stdin: bool
) -> None:
    """Create an account. Its id is printed."""
    account: dict[str, Any] = {"username": username}
    account |= {"email": email} if email else {}
    account |= {"role": "admin"} if admin else {}
    account |= {"kind": "service"} if service else {"password": _password(stdin=password_stdin)}
    click.echo(users.create(CONSOLE, **_load(RegisterSchema, account)).id)


@users_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_inside
def list_users(*, as_json: bool) -> None:
    """List all accounts, newest first."""
    for user in _all(users.listing):
        if as_json:
            _print_json(UserSchema(), user)
        else:
            state = "active" if user.is_active else "disabled"
            click.echo(f"{user.id}  {user.username:<24} {user.role:<6} {user.kind:<8} {state}")


@users_group.command()
@click.argument("username")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@_inside
def set_password(username: str, *, password_stdin: bool) -> None:
    """Set a password, and end all sessions of the account."""
    user = _user(username)
    users.set_password(CONSOLE, user, _password(stdin=password_stdin))


@users_group.command()
@click.argument("username")
@_inside
def disable(username: str) -> None:
    """Disable an account: its sessions end for good, its keys stop."""
    users.change(CONSOLE, _user(username).id, is_active=False)


@users_group.command()
@click.argument("username")
@_inside
def enable(username: str) -> None:
    """Enable an account; its keys go on."""
    users.change(CONSOLE, _user(username).id, is_active=True)


# --- keys ---


@keys_group.command("create")
@click.argument("owner")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="What the key may do; repeatable.")
@click.option("--expires-in-days", type=int, help="1 to 3650; without it the key does not expire.")
@_inside
def create_key(owner: str, name: str, scopes: tuple[str, ...], expires_in_days: int | None) -> None:
    """Create a key for the account OWNER. Its text is printed, this once."""
    wanted: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    wanted |= {"expires_in_days": expires_in_days} if expires_in_days is not None else {}
    key = keys.issue(CONSOLE, **_load(CreateKeySchema, wanted), owner=_user(owner))
    click.echo(key.key)


@keys_group.command("list")
@click.option("--unused-since", type=click.DateTime(["%Y-%m-%d"]), help="Not used since that day.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_inside
def list_keys(unused_since: datetime | None, *, as_json: bool) -> None:
    """List all keys, newest first."""
    since = unused_since and unused_since.replace(tzinfo=UTC)
    for key in _all(keys.listing, owner_id="any", unused_since=since):
        if as_json:
            _print_json(ApiKeySchema(), key)
        else:
            used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else "never used"
            click.echo(f"{key.id}  {key.secret.hint:<24} {key.status:<8} {used:<10}  {key.name}")


@keys_group.command()
@click.argument("key_id", type=click.UUID)
@_inside
def revoke(key_id: UUID) -> None:
    """Revoke a key, for good."""
    keys.revoke(CONSOLE, key_id)


@keys_group.command("check")
def check_key() -> None:
    """Read a text from standard input and tell whether it has the form of a key. Asks nobody."""
    if not tokens.is_api_key(sys.stdin.readline().strip()):
        _fail("that is not the text of an API key: its form or its checksum is wrong.")
    click.echo("That has the form of an API key, and its checksum is right.")


# --- audit ---


@audit_group.command("list")
@click.option("--actor", help="Done by this user: username, e-mail address or id.")
@click.option("--action", type=click.Choice(audit.ACTIONS), help="Of this action.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Since that day, in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_inside
def list_events(
    actor: str | None, action: str | None, since: datetime | None, *, as_json: bool
) -> None:
    """List events, newest first."""
    filters: dict[str, Any] = {"since": since and since.replace(tzinfo=UTC)}
    filters |= {"actor_id": _user_id(actor)} if actor else {}
    filters |= {"action": action} if action else {}
    for event in _all(audit.listing, **filters):
        if as_json:
            _print_json(AuditEventSchema(), event)
        else:
            target = f"  to {event.target_type} {event.target_id}" if event.target_id else ""
            click.echo(
                f"{event.created_at:%Y-%m-%d %H:%M:%S}  {event.action:<15} {event.outcome:<7}"
                f"  by {event.actor_id or '-'}  from {event.ip or '-'}{target}"
            )


@audit_group.command()
@_inside
def verify() -> None:
    """Hold all sealed events against their seals. Exit code 1 if anything was altered."""
    report = chain.verify()
    click.echo(f"{report.checked} sealed events, up to sequence {report.sequence}")
    click.echo(f"seal {report.seal or 'none'}   (compare with the newest audit.seal in the log)")
    click.echo(f"{report.unsealed} not sealed yet, the oldest for {report.oldest_unsealed:.0f} s")
    if report.faults:
        more = [f"and {report.more} more."] if report.more else []
        _fail(*report.faults, *more)


@audit_group.command("export")
@_inside
def export_events() -> None:
    """Print all events, oldest first, one JSON object a line, with sequence and seal."""
    schema = SealedEventSchema()
    for event in audit.export():
        _print_json(schema, event)


# --- upkeep ---


@click.command("prune")
@with_appcontext
@_inside
def prune_command() -> None:
    """Delete what means nothing any more: expired sessions, throttles, audit beyond retention.

    The servers do so little by little; this does it all at once.
    """
    pruned = 0
    while some := upkeep.prune():
        pruned += some
    click.echo(f"{pruned} rows deleted.")


# --- tokens ---


@tokens_group.command()
@click.option("--promote", is_flag=True, help="Move the last key first: it signs from then on.")
@click.option("--drop-others", is_flag=True, help="Remove all keys but the first, which signs.")
def rotate_key(*, promote: bool, drop_others: bool) -> None:
    """Add a fresh key to JWT_PRIVATE_KEY_FILE; each step says what comes next."""
    if promote and drop_others:
        raise click.UsageError("--promote and --drop-others are two steps, with a wait in between.")
    act = signing_keys.drop_others if drop_others else signing_keys.add
    act = signing_keys.promote if promote else act
    service: Service | None = current_app.extensions.get("backend")  # none if the app refuses
    try:
        settings = service.settings if service else Settings.load()
        keys = act(settings)
    except SettingsError as refusal:
        _fail(*refusal.problems)
    except OSError as error:
        _fail(f"JWT_PRIVATE_KEY_FILE cannot be written: {error.strerror}.")
    for key in keys:
        click.echo(signing_keys.thumbprint(key))
    if promote:
        wait = settings.jwt_access_token_expire_minutes + 1
        click.echo(
            "The first of these keys signs once all processes are restarted; do that now."
            f" {wait} minutes later run this with --drop-others."
        )
    elif len(keys) > 1:
        click.echo(
            "The last of these keys is new. Restart all processes now; when caches of"
            " /.well-known/jwks.json have it, after 5 minutes, run this with --promote."
        )
    else:
        click.echo("This key alone signs and verifies once all processes are restarted.")


# --- doctor ---


@click.command("doctor")
@with_appcontext
@_inside
def doctor_command() -> None:
    """Tell what is wrong or doubtful, and what to do about it. Exit code 1 if anything is fatal."""
    service = context.service()
    fatal, doubtful = doctor.findings(service.settings, service.database)
    if not fatal:
        for each in (auth, mfa, keys, chain, notices):
            doubtful += each.doubts()
    for sentence in doubtful:
        click.echo(f"warning: {sentence}")
    if fatal:
        _fail(*fatal, word="fatal")
    click.echo(f"{len(doubtful)} warnings, nothing fatal.")


def _load(schema: type[Schema], given: dict[str, Any]) -> dict[str, Any]:
    """What the schema makes of the input, judged as if it had come by HTTP."""
    admission.require_printable(given)
    return schema().load(given)


def _password(*, stdin: bool) -> str:
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        _fail("no terminal to ask for a password on; use --password-stdin.")
    admission.require_printable({"password": password})
    return password


def _user(username: str) -> User:
    user = users.find(username)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _user_id(name: str) -> UUID:
    """The id of the user called so; an id stands for itself, and its user may be gone."""
    try:
        return UUID(name)
    except ValueError:
        return _user(name).id


def _all(listing: Callable[..., Any], **filters: Any) -> Iterator[Any]:
    """All rows of a service's listing, page by page."""
    cursor: UUID | None = None
    while True:
        rows, cursor = listing(CONSOLE, limit=100, cursor=cursor, **filters)
        yield from rows
        if cursor is None:
            return


def _print_json(schema: Schema, row: Any) -> None:
    click.echo(json.dumps(schema.dump(row)))
