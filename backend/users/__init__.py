"""Accounts, and what administrators can do with them."""

from ..subject import Scope, Subject, Target
from . import commands, held_usernames, routes, service

SUBJECT = Subject(
    name="users",
    blueprints=(routes.blp,),
    commands=(commands.group,),
    scopes=(
        Scope("users:read"),
        Scope("users:write"),
        Scope("users:*", for_admins=True),
    ),
    audit_actions=("user.create", "user.update", "user.delete", "email.change"),
    targets={"user": Target(service.name_of, service.id_of)},
    maintenance=(held_usernames.prune,),
)
