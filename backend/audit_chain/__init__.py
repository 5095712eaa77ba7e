"""Seals audit events in a chain, so that later changes are detected. Skip it on a first reading."""

from ..subject import Subject
from . import commands, service

# Importing the commands adds `verify` to `flask audit`.
__all__ = ["SUBJECT", "commands"]

SUBJECT = Subject(
    name="audit_chain",
    periodic=(service.seal,),
    maintenance=(service.prune,),
    warnings=(service.warnings,),
)
