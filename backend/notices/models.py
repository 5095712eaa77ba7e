"""The notices table."""

import peewee as pw

from ..core.clock import now
from ..db.database import Model, UTCDateTimeField


class Notice(Model):
    """A problem that was noticed: its name, and when it was last seen."""

    name = pw.CharField(max_length=32, unique=True)
    seen_at = UTCDateTimeField(default=now)

    class Meta:
        table_name = "notices"
