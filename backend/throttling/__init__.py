"""Protection against guessing passwords and codes."""
