"""`flask mail`: send a test mail. Skip it on a first reading."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from .. import services
from ..core.email_addresses import fold_email
from ..mail import mailer, smtp
from .common import fail, inside, say

group = AppGroup("mail", help="Mail that the service sends.")


@group.command()
@click.argument("address")
@inside
def test(address: str) -> None:
    """Send a test mail to ADDRESS and report the mail server's reply."""
    if not mailer.enabled():
        fail("MAIL_URL is not set: no mail is sent.")
    try:
        fold_email(address)
    except ValueError:
        fail(f"{address} is not an e-mail address.")
    try:
        services.current().mailer.send_now(address, "test", username="")
    except smtp.NotSent as fault:
        fail(f"not sent: {fault.reason}.")
    say(f"Sent to {address}.")
