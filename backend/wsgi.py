"""The service as a process of its own: `gunicorn backend.wsgi:app`, `python -m backend.wsgi`.

Settings are read from the environment and logs are configured; importing `backend` does neither.
In a checkout, wsgi.py beside this package is the same under a shorter name.
"""

import sys

from . import cli
from .app import create_app
from .core import logs
from .core.settings import Settings, SettingsError
from .db.database import require_usable

try:
    settings = Settings.load()
    logs.configure(settings, console=sys.stderr if cli.is_command() else sys.stdout)
    app = create_app(settings)
    if not cli.is_command():
        require_usable(app.extensions["backend"].database)
except SettingsError as refusal:
    if not cli.is_command():
        print(f"Not started, for these reasons:\n{refusal}", file=sys.stderr)
        sys.exit(4)  # gunicorn starts no further worker after this one
    app = cli.refusing_app(refusal)

application = app  # the name that mod_wsgi, uWSGI and Passenger look for


def main() -> None:
    """Serve until a signal ends it."""
    from .server.serving import serve  # not needed under another server

    serve(app, settings)


if __name__ == "__main__":
    main()
