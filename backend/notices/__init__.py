"""What a running service noticed and its operator should know, kept for `flask doctor`."""

from ..subject import Subject
from . import service

SUBJECT = Subject(name="notices", warnings=(service.warnings,))
