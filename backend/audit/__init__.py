"""The audit trail: who did what, when, from where, in a chain that reveals alterations."""
