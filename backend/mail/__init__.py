"""Mail: writing it, storing it until it is sent, sending it. Skip it on a first reading."""
