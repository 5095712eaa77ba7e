"""Your own Flask application, with the whole service mounted under /accounts.

Run it with the settings of the service:
`.venv/bin/gunicorn -b 127.0.0.1:8080 --threads 8 examples.mounted:app`
"""

from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from backend.app import create_app
from backend.forward_auth.decorator import guarded

accounts = create_app()
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/accounts": accounts})


@app.get("/")
def front() -> str:
    """The front page, open to everyone."""
    return "Sign in at /accounts/v1/auth/login; reports are at /reports.\n"


@app.get("/reports")
@guarded(accounts.extensions["backend"], "reports:read")
def reports() -> dict[str, str]:
    """The reports, for a session or for a key with the scope reports:read."""
    caller = request.environ["backend.identity"]
    return {"for": caller.username, "by": caller.method}
