"""The sessions table."""

import peewee as pw

from ..core.clock import now
from ..db.database import Model, UTCDateTimeField
from ..users.models import User


class Session(Model):
    """One sign-in, alive while its row exists, its epoch is the user's, and it has not expired.

    `generation` counts rotations: the refresh token of the current generation works, and the
    previous one for a few seconds after `rotated_at`. `expires_at`, `ip` and `user_agent` are those
    of the last sign-in or refresh; `secret_id` names the SECRET_KEY that signed its refresh token;
    `grace_used_at` is when the previous generation was last accepted from elsewhere.
    """

    user = pw.ForeignKeyField(User, on_delete="CASCADE")
    epoch = pw.IntegerField()
    generation = pw.IntegerField(default=0)
    rotated_at = UTCDateTimeField(null=True)
    grace_used_at = UTCDateTimeField(null=True)
    last_used_at = UTCDateTimeField(default=now)
    expires_at = UTCDateTimeField()
    ip = pw.CharField(max_length=45, null=True)
    secret_id = pw.CharField(max_length=8, null=True)
    user_agent = pw.CharField(max_length=200, null=True)

    class Meta:
        table_name = "sessions"
