"""Accounts, sessions and API keys as a synchronous WSGI service. Importing it does nothing."""

__version__ = "0.1.0"
