"""Mail: writing it, keeping it until it is sent, sending it. Skip it on a first reading."""
