"""API keys: long-lived credentials that a user makes for programs."""
