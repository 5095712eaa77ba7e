"""Problems that a running service notices, kept for `flask doctor` to report.

Skip it on a first reading.
"""

from ..subject import Subject
from . import service

SUBJECT = Subject(name="notices", warnings=(service.warnings,))
