"""Your own Django application, guarded by the service except for its front page.

Run it with the settings of the service. It needs Django, which `make test` installs:
`.venv/bin/gunicorn -b 127.0.0.1:8080 --threads 8 examples.django_app:application`
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from backend.app import create_services
from backend.forward_auth.middleware import Middleware

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])


def front(request: HttpRequest) -> HttpResponse:
    """The front page, open to everyone."""
    return HttpResponse("Reports are at /reports.\n")


def reports(request: HttpRequest) -> JsonResponse:
    """The reports, for a session or for a key with the scope reports:read."""
    caller = request.environ["backend.identity"]
    return JsonResponse({"for": caller.username, "by": caller.method})


urlpatterns = [path("", front), path("reports", reports)]

application = Middleware(
    get_wsgi_application(), create_services(), scopes=["reports:read"], open_paths=["/"]
)
