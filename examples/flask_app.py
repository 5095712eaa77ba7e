"""Your own Flask application, with a view for callers whom the service knows.

Run it with the settings of the service:
`.venv/bin/gunicorn -b 127.0.0.1:8080 --threads 8 examples.flask_app:app`
"""

from flask import Flask, request

from backend.app import create_services
from backend.forward_auth.decorator import guarded

app = Flask(__name__)
service = create_services()


@app.get("/")
def front() -> str:
    """The front page, open to everyone."""
    return "Reports are at /reports.\n"


@app.get("/reports")
@guarded(service, "reports:read")
def reports() -> dict[str, str]:
    """The reports, for a session or for a key with the scope reports:read."""
    caller = request.environ["backend.identity"]
    return {"for": caller.username, "by": caller.method}
