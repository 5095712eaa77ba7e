"""The tables of failed guesses and of the addresses from which users signed in."""

import peewee as pw

from ..core.clock import now
from ..db.database import Model, UTCDateTimeField
from ..users.models import User


class Throttle(Model):
    """How much of a limit is used up until `expires_at`. The bucket's name is a digest."""

    bucket = pw.CharField(max_length=64, unique=True)
    used = pw.IntegerField()
    expires_at = UTCDateTimeField(index=True)

    class Meta:
        table_name = "throttles"


class KnownAddress(Model):
    """An address (IPv6: a /64 network) from which the user signed in, and when they last did.

    Followed by " by mail", it is one from which they used a link that only their mailbox had.
    """

    user = pw.ForeignKeyField(User, on_delete="CASCADE", index=False)
    address = pw.CharField(max_length=45)
    last_used_at = UTCDateTimeField(default=now, index=True)

    class Meta:
        table_name = "known_addresses"
        indexes = ((("user", "address"), True),)
