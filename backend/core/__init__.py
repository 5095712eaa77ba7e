"""What needs no HTTP: settings, database, passwords, tokens, logs, time."""
