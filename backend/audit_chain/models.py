"""The table of the audit chain."""

import peewee as pw

from ..db.database import Model


class AuditChain(Model):
    """The ends of the chain, in one row: the newest pruned event and the newest sealed one.

    `wrapped_key` is the key of the seals, encrypted under SECRET_KEY; `mac` authenticates both ends
    with that key.
    """

    start_sequence = pw.BigIntegerField(default=0)
    start_seal = pw.CharField(max_length=64, default="")
    last_sequence = pw.BigIntegerField(default=0)
    last_seal = pw.CharField(max_length=64, default="")
    wrapped_key = pw.TextField()
    mac = pw.CharField(max_length=64)

    class Meta:
        table_name = "audit_chain"
