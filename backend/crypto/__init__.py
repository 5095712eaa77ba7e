"""What is signed, digested, sealed or hashed."""
