"""The second factor: one-time codes from an authenticator app, and recovery codes.

Skip it on a first reading.
"""

from ..subject import Subject
from . import codes, routes, service

SUBJECT = Subject(
    name="mfa",
    blueprints=(routes.blp,),
    audit_actions=("login.mfa", "mfa.enable", "mfa.disable"),
    second_steps=(service.require_code,),
    session_checks=(service.require_enrolment,),
    secrets_in_use={"second factor": codes.secrets_in_use},
)
