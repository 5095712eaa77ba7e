"""Audit events inserted into the database while the service runs: none is sealed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

from backend.audit.models import AuditEvent
from backend.audit_chain import verification
from backend.db.database import insert_all, new_id, release

from ..support.apps import service_of
from ..support.concurrency import until
from ..support.long_runs import FULL, UNTHROTTLED, Site
from ..support.people import PASSWORD, add_user

AT_ONCE = 50
COUNT = 400 * AT_ONCE if FULL else 10 * AT_ONCE
LOGIN = json.dumps({"username": "alice", "password": f"{PASSWORD}!"})


def forged(genuine: list[AuditEvent], chance: random.Random) -> AuditEvent:
    """An event mixed of two others, sealed ones or not, with a signature of its kind or without."""
    pair = chance.choices(genuine, k=2)
    values: dict[str, Any] = {
        name: getattr(chance.choice(pair), name)
        for name in AuditEvent._meta.sorted_field_names
        if name not in ("id", "sequence")
    }
    values["seal"] = chance.choice([None, values["seal"], f"{chance.getrandbits(256):064x}"])
    return AuditEvent(id=new_id(), sequence=None, **values)


def test_inserted_events(
    make_site: Callable[..., Site], figure: Callable[[str, str], None]
) -> None:
    client, [server] = make_site(**UNTHROTTLED)
    add_user(client, "alice")
    service, chance = service_of(client.application), random.Random()
    with service.active():
        for _ in range(COUNT // AT_ONCE):
            assert server.ask("POST", "/v1/auth/login", LOGIN).status == 401
            genuine = list(AuditEvent.select().order_by(AuditEvent.id.desc()).limit(100))
            insert_all([forged(genuine, chance) for _ in range(AT_ONCE)])
            release(service.database)
        until(lambda: verification.verify().unsealed == 0)
        begun = time.thread_time()
        report = verification.verify()
        release(service.database)
    figure("verifying", f"{time.thread_time() - begun:.2f} s")
    figure("genuine events sealed", f"{report.checked:,}")
    figure("inserted events found, sealed", f"{report.unsigned:,}, 0")
    assert report.checked == COUNT // AT_ONCE + 1  # and that Alice was created
    assert report.unsigned == len(report.faults) + report.more == COUNT
