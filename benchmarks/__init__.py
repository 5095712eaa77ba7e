"""What the service costs, and against what: `make bench`, `make bench-path`."""
