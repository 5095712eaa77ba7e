"""Signing in: sessions, access and refresh tokens, and who a credential stands for."""
