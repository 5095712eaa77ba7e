"""The entry point: `python wsgi.py`, `gunicorn wsgi:app`, `flask --app wsgi COMMAND`.

Here, and only here, settings are read from the environment and logs are configured.
"""

import sys

from backend import cli
from backend.app import create_app
from backend.core import logs
from backend.core.settings import Settings, SettingsError

try:
    settings = Settings.load()
    logs.configure(settings, console=sys.stderr if cli.running() else sys.stdout)
    app = create_app(settings)
except SettingsError as refusal:
    if not cli.running():
        sys.exit(f"Not started, for these reasons:\n{refusal}")
    app = cli.refusing_app(refusal)

application = app  # the name that mod_wsgi, uWSGI and Passenger look for

if __name__ == "__main__":
    from backend.server import serve

    serve(app, settings)
