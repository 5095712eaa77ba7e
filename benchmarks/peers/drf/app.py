"""Django REST framework with simplejwt and djangorestframework-api-key.

`JWTAuthentication` reads the user on each request. `python app.py` creates the database and prints
the requests of each workload.
"""

import json
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

import django

django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path
from keys.models import OwnedKey
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_api_key.permissions import KeyParser
from rest_framework_simplejwt.authentication import (
    JWTAuthentication,
    JWTStatelessUserAuthentication,
)
from rest_framework_simplejwt.tokens import RefreshToken
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView


class KeyAuthentication(BaseAuthentication):
    """Requires a valid key, as `HasAPIKey` does, and finds its owner in the same query."""

    def authenticate(self, request: Request) -> tuple[User, OwnedKey] | None:
        """(owner, key); None if no key was sent."""
        text = KeyParser().get(request)
        if not text:
            return None
        try:
            key = OwnedKey.objects.get_from_key(text)
        except OwnedKey.DoesNotExist:
            raise AuthenticationFailed from None
        if key.has_expired or not key.owner.is_active:
            raise AuthenticationFailed
        return key.owner, key


class UserSerializer(serializers.ModelSerializer):
    """The user, as `me` shows them."""

    class Meta:
        model = User
        fields = ("id", "username", "email", "is_active", "is_staff", "date_joined", "last_login")


class Me(APIView):
    """The caller, by token or by key."""

    authentication_classes = (JWTAuthentication, KeyAuthentication)
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        """The user."""
        return Response(UserSerializer(request.user).data)


class MeUnread(APIView):
    """The id of the caller, from the token alone."""

    authentication_classes = (JWTStatelessUserAuthentication,)
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        """The user's id."""
        return Response({"id": request.user.id})


class Key(serializers.Serializer):
    """The body of a request for a new key."""

    name = serializers.CharField(max_length=50)


class Keys(APIView):
    """The caller's keys."""

    authentication_classes = (JWTAuthentication,)
    permission_classes = (IsAuthenticated,)

    def post(self, request: Request) -> Response:
        """A new key, and its text."""
        asked = Key(data=request.data)
        asked.is_valid(raise_exception=True)
        key, text = OwnedKey.objects.create_key(owner=request.user, **asked.validated_data)
        return Response({"id": key.id, "name": key.name, "key": text}, status=201)


urlpatterns = [
    path("me", Me.as_view()),
    path("me/unread", MeUnread.as_view()),
    path("login", TokenObtainPairView.as_view()),
    path("refresh", TokenRefreshView.as_view()),
    path("keys", Keys.as_view()),
]

app = get_wsgi_application()


def prepare() -> dict[str, Any]:
    """Create the tables and a user; return {workload: request}."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    password = "correct horse battery staple"
    user = User.objects.create_user("alice", "alice@example.com", password)
    _, key = OwnedKey.objects.create_key(owner=user, name="bench")
    refresh = RefreshToken.for_user(user)
    bearer = {"Authorization": f"Bearer {refresh.access_token}"}
    login = {"username": "alice", "password": password}
    return {
        "me by token": {"path": "/me", "headers": bearer},
        "me by token, no revocation": {"path": "/me/unread", "headers": bearer},
        "me by key": {"path": "/me", "headers": {"X-API-Key": key}},
        "login": {"path": "/login", "json": login},
        "refresh": {"path": "/refresh", "json": {"refresh": str(refresh)}},
        "key creation": {"path": "/keys", "headers": bearer, "json": {"name": "bench"}},
    }


if __name__ == "__main__":
    print(json.dumps(prepare()))
