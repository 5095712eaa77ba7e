"""Background work: queued tasks, periodic tasks, deferred writes. Skip it on a first reading."""
