"""What a running service noticed and its operator should know, kept for `flask doctor`."""
