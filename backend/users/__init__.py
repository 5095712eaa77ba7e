"""Accounts: who exists, and what administrators may do with them."""
