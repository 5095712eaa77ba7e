"""A key of djangorestframework-api-key with an owner, who is read together with it."""

from django.conf import settings
from django.db import models
from rest_framework_api_key.models import AbstractAPIKey, APIKeyManager


class OwnedKeys(APIKeyManager):
    """The keys, each with its owner, in one query."""

    def get_usable_keys(self) -> models.QuerySet:
        """Those that are not revoked."""
        return super().get_usable_keys().select_related("owner")


class OwnedKey(AbstractAPIKey):
    """A key and whose it is."""

    objects = OwnedKeys()
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
