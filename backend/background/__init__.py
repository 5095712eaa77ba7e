"""Work beside the requests: jobs, periodic tasks, deferred writes. Skip it on a first reading."""
