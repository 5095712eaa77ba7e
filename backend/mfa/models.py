"""The tables of second factors and of recovery codes."""

import peewee as pw

from ..db.database import Model, UTCDateTimeField
from ..users.models import User


class SecondFactor(Model):
    """The secret that a user's authenticator app holds too, encrypted; in force once confirmed.

    `secret_id` names the SECRET_KEY under which it is encrypted. Codes of `last_step`, a number of
    30-second steps since the epoch, and of all steps before it are used up.
    """

    user = pw.ForeignKeyField(User, on_delete="CASCADE", unique=True)
    secret = pw.CharField(max_length=255)
    secret_id = pw.CharField(max_length=8)
    confirmed_at = UTCDateTimeField(null=True)
    last_step = pw.BigIntegerField(default=0)

    class Meta:
        table_name = "second_factors"


class RecoveryCode(Model):
    """The digest of a code that is good once, in place of the authenticator app."""

    user = pw.ForeignKeyField(User, on_delete="CASCADE")
    digest = pw.CharField(max_length=64, unique=True)

    class Meta:
        table_name = "recovery_codes"
