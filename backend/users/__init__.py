"""Accounts: who there is, and what administrators may do with them."""
