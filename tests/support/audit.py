"""The chain of audit events: recorded, sealed, altered and verified."""

from __future__ import annotations

from typing import Any

from backend.audit.service import record
from backend.audit_chain import service as chain
from backend.audit_chain import verification
from backend.audit_chain.verification import Report
from backend.db.database import new_id, release
from backend.services import Services

SECRET, NEXT_SECRET = "0123456789" * 4, "9876543210" * 4


def record_some(service: Services, count: int = 5) -> None:
    """Record events that differ, and let the process's chores seal them."""
    with service.active():
        for number in range(count):
            action = ("login", "logout")[number % 2]
            record(None, action, target=("user", new_id()), number=number)
        release(service.database)


def seal(service: Services) -> None:
    """Do what is left for later."""
    service.periodic_tasks.run()


def verified(service: Services) -> Report:
    """What verifying finds."""
    with service.active():
        report = verification.verify()
        release(service.database)
    return report


def assert_clean(service: Services, checked: int, unsealed: int = 0) -> Report:
    """Nothing is altered, and so many events are there."""
    report = verified(service)
    assert (report.faults, report.checked, report.unsealed) == ([], checked, unsealed)
    return report


def execute(service: Services, *statements: str) -> Any:
    """Run statements as someone with write access to the database would; return the last rows."""
    with service.database.atomic():
        for statement in statements:
            cursor = service.database.execute_sql(statement)
    rows = cursor.fetchall() if cursor.description else None
    release(service.database)
    return rows


OTHER_ID = "01920000000070008000000000000001"
OTHER_SEAL = "0" * 64
COLUMNS = {
    "id": f"'{OTHER_ID}'",
    "created_at": "'2026-01-01 00:00:00.000000+00:00'",
    "action": "'user.create'",
    "outcome": "'failure'",
    "actor_id": f"'{OTHER_ID}'",
    "target_type": "'session'",
    "target_id": "NULL",
    "ip": "'192.0.2.1'",
    "request_id": "'x'",
    "detail": "'{\"number\": 7}'",
    "sequence": "77",
    "seal": f"'{OTHER_SEAL}'",
}


def prune(service: Services, **kwargs: int) -> int:
    with service.active():
        count = chain.prune(**kwargs)
        release(service.database)
    return count
