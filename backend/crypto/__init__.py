"""Signing, digests, encryption and password hashing. Skip it on a first reading."""
