"""The metrics endpoint for Prometheus. Skip it on a first reading."""

from ..subject import Subject
from . import routes

SUBJECT = Subject(name="metrics", init_app=routes.init_app)
