"""API keys: long-lived credentials that users create for programs."""
