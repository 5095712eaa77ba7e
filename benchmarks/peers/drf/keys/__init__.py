"""API keys that belong to a user."""
