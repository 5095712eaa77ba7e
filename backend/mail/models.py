"""The table of waiting mail. Skip it on a first reading."""

import json
from typing import Any

import peewee as pw

from ..db.database import Model, UTCDateTimeField


class Mail(Model):
    """A waiting mail. `content` has the values for its template as JSON, without secrets.

    There is at most one for each user and `kind`, which begins with the template's name. `due_at`
    is the time of the next attempt, or the end of the lease while an attempt is running.
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
        """The values for its template."""
        return dict(json.loads(self.content))
