"""What the service costs, and compared with what: `make bench`, `make bench-path`."""
