"""Accounts, sessions and API keys as a synchronous WSGI service. Importing it has no side effects.

To learn the code, read app, services, core, web/access, auth, users and api_keys, in that order.
"""

__version__ = "0.1.0"
