"""Imports API keys from another system by their digests. Skip it on a first reading."""

from ..subject import Subject
from . import commands

# Importing the commands adds `import` to `flask keys`.
__all__ = ["SUBJECT", "commands"]

SUBJECT = Subject(name="key_import", audit_actions=("key.import",))
