"""What is done against those who guess passwords and codes."""
