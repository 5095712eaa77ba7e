"""API keys: long-lived credentials that users create for programs."""

from ..background.write_behind import newest
from ..subject import Scope, Subject, Target
from . import commands, lifecycle, queries, rotation, routes, service

SUBJECT = Subject(
    name="api_keys",
    blueprints=(routes.blp,),
    commands=(commands.group,),
    scopes=(
        Scope("keys:read"),
        Scope("keys:write"),
        Scope("keys:verify", for_services=True),
    ),
    audit_actions=(
        "key.create",
        "key.update",
        "key.disable",
        "key.revoke",
        "key.rotate",
        "key.delete",
    ),
    targets={"api_key": Target(queries.name_of)},
    write_behind={service.write_last_used: newest},
    hourly=(lifecycle.disable_unused_keys, lifecycle.notify_of_expiring_keys),
    secrets_in_use={"API key": rotation.secrets_in_use},
)
