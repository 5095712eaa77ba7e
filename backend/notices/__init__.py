"""Problems that a running service notices, kept for `flask doctor` to report."""

from ..subject import Subject
from . import service

SUBJECT = Subject(name="notices", warnings=(service.warnings,))
