"""The tables of second factors and of recovery codes."""

import peewee as pw

from ..db.database import Model, UTCDateTimeField
from ..users.models import User


class SecondFactor(Model):
    """The encrypted secret shared with a user's authenticator app; active once confirmed.

    `secret_id` names the SECRET_KEY that encrypts it. The codes of `last_step`, which counts steps
    of 30 seconds since 1970, and of all earlier steps are used up.
    """

    user = pw.ForeignKeyField(User, on_delete="CASCADE", unique=True)
    secret = pw.CharField(max_length=255)
    secret_id = pw.CharField(max_length=8)
    confirmed_at = UTCDateTimeField(null=True)
    last_step = pw.BigIntegerField(default=0)

    class Meta:
        table_name = "second_factors"


class RecoveryCode(Model):
    """The digest of a code that works once instead of the authenticator app."""

    user = pw.ForeignKeyField(User, on_delete="CASCADE")
    digest = pw.CharField(max_length=64, unique=True)

    class Meta:
        table_name = "recovery_codes"
