"""Verification for other services: the same decision, asked from outside."""
