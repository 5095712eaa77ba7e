"""What is wrong or doubtful about an installation. Skip it on a first reading."""
