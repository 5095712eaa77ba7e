"""Django with only what these routes need: no middleware, no sessions, no templates.

The database connection is kept between requests, which Django does not do by itself.
"""

import os
from datetime import timedelta

SECRET_KEY = "benchmarks: of no use elsewhere " * 2
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "app"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "rest_framework_api_key",
    "keys",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["DATABASE"],
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=wal",
            "transaction_mode": "IMMEDIATE",
        },
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.BCryptSHA256PasswordHasher"]  # 12 rounds
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
}
SIMPLE_JWT = {"ACCESS_TOKEN_LIFETIME": timedelta(days=1)}
API_KEY_CUSTOM_HEADER = "HTTP_X_API_KEY"
