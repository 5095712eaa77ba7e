"""The tables of users and of the usernames they gave up."""

import peewee as pw

from ..core.clock import now
from ..db.database import Model, UTCDateTimeField


class User(Model):
    """A person or a service account.

    The folded columns hold the unique forms: the username in lower case, and the e-mail address in
    lower case with its domain in ASCII. `session_epoch` is copied into each session at sign-in;
    raising it ends all the user's sessions in one write, including those just being made. A link in
    a mail works only if it holds the user's current link epoch of its kind.
    """

    username = pw.CharField(max_length=64)
    username_folded = pw.CharField(max_length=64, unique=True)
    email = pw.CharField(max_length=254, null=True)
    email_folded = pw.CharField(max_length=254, null=True, unique=True)
    pending_email = pw.CharField(max_length=254, null=True)
    password_hash = pw.CharField(max_length=60, null=True)
    role = pw.CharField(max_length=16, constraints=[pw.Check("role IN ('user', 'admin')")])
    kind = pw.CharField(max_length=16, constraints=[pw.Check("kind IN ('person', 'service')")])
    is_active = pw.BooleanField(default=True)
    mfa_enabled = pw.BooleanField(default=False)
    session_epoch = pw.IntegerField(default=0)
    password_link_epoch = pw.IntegerField(default=0)
    email_link_epoch = pw.IntegerField(default=0)
    updated_at = UTCDateTimeField(default=now)
    last_login_at = UTCDateTimeField(null=True)

    class Meta:
        table_name = "users"


class HeldUsername(Model):
    """A username freed at `created_at` by renaming or deletion, and who had it.

    Services that know users by name would mistake a stranger for the former holder.
    """

    username_folded = pw.CharField(max_length=64, unique=True)
    user_id = pw.UUIDField()

    class Meta:
        table_name = "held_usernames"
        indexes = ((("created_at",), False),)
