"""Mail: writing it, storing it until it is sent, sending it. Skip it on a first reading."""

from ..subject import Subject
from . import outbox

SUBJECT = Subject(name="mail", maintenance=(outbox.prune,), warnings=(outbox.warnings,))
