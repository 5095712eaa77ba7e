"""The second factor: one-time codes from an authenticator app, and recovery codes."""
