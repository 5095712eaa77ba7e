"""Signing in: sessions, access and refresh tokens, and whom a credential identifies."""
