"""The entry point: `python wsgi.py`, `gunicorn wsgi:app`, `flask --app wsgi COMMAND`.

Settings are read from the environment and logs are configured; `backend` alone does neither.
"""

import sys

from backend import cli
from backend.app import create_app
from backend.core import logs
from backend.core.settings import Settings, SettingsError

try:
    settings = Settings.load()
    logs.configure(settings, console=sys.stderr if cli.is_command() else sys.stdout)
    app = create_app(settings)
except SettingsError as refusal:
    if not cli.is_command():
        print(f"Not started, for these reasons:\n{refusal}", file=sys.stderr)
        sys.exit(4)  # gunicorn starts no further worker after this one
    app = cli.refusing_app(refusal)

application = app  # the name that mod_wsgi, uWSGI and Passenger look for

if __name__ == "__main__":
    from backend.server import serve

    serve(app, settings)
