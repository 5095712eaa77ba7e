"""The table of mail that waits."""

import json
from typing import Any

import peewee as pw

from ..db.database import Model, UTCDateTimeField


class Mail(Model):
    """A mail that waits. `content` is what its template is filled with, as JSON, without secrets.

    There is one of each `kind` for a user; it begins with the template's name. `due_at` is when
    the next attempt may begin: while one is under way, the end of its lease.
    """

    user_id = pw.UUIDField(null=True)
    kind = pw.CharField(max_length=300)
    recipient = pw.CharField(max_length=254)
    content = pw.TextField()
    attempts = pw.IntegerField(default=0)
    due_at = UTCDateTimeField(index=True)
    expires_at = UTCDateTimeField(index=True)

    class Meta:
        table_name = "mails"
        indexes = ((("user_id", "kind"), True),)

    @property
    def template(self) -> str:
        """The name of its template."""
        return str(self.kind).partition(" ")[0]

    @property
    def values(self) -> dict[str, Any]:
        """What its template is filled with."""
        return dict(json.loads(self.content))
