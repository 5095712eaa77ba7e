"""What all routes share: the guard, the API and its errors, headers, docs, health."""
