"""Protection against guessing passwords and codes."""

from ..subject import Subject
from . import service

SUBJECT = Subject(name="throttling", maintenance=(service.prune,))
