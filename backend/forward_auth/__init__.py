"""Forward-auth: lets proxies, WSGI applications and single views check who is calling.

Skip it on a first reading.
"""

from ..subject import Subject
from . import routes

SUBJECT = Subject(name="forward_auth", init_app=routes.init_app)
