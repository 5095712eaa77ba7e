"""Counts how often API keys are used and refused. Skip it on a first reading."""

import operator

from ..subject import Subject
from . import routes, service

SUBJECT = Subject(
    name="key_usage",
    blueprints=(routes.blp,),
    on_verification=(service.count,),
    write_behind={service.write_usage: operator.add},
    maintenance=(service.prune,),
)
