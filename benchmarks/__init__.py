"""What the service costs, and how it compares: `make bench`, `make bench-path`."""
