"""The audit trail: who did what, when, and from where."""

import operator

from ..subject import Scope, Subject
from . import commands, denials, routes, service

SUBJECT = Subject(
    name="audit",
    blueprints=(routes.blp,),
    commands=(commands.group,),
    scopes=(Scope("audit:read"), Scope("audit:*", for_admins=True)),
    audit_actions=("access.denied",),
    write_behind={denials.write_denials: operator.add},
    maintenance=(denials.prune, service.prune),
)
