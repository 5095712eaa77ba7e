"""The service as a process: `gunicorn backend.wsgi:app`, `python -m backend.wsgi`.

It reads the settings from the environment and configures logging; importing the package does
neither. In a checkout, the wsgi.py beside this package does the same under a shorter name.
"""

import sys

from . import cli
from .app import COMMANDS, create_app
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
        sys.exit(4)  # this status keeps gunicorn from starting another worker
    app = cli.refusing_app(refusal, COMMANDS)

application = app  # the name that mod_wsgi, uWSGI and Passenger look for


def main() -> None:
    """Serve until a signal stops the process."""
    from .server.serving import serve  # not needed under other servers

    serve(app, settings)


if __name__ == "__main__":
    main()
