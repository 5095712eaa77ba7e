"""What a running service saw that whoever set it up should know, kept for `flask doctor`."""
