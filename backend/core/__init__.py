"""Code without HTTP or SQL: settings, errors, identity, context, logs, metrics, limits, time."""
