"""Forward-auth: lets proxies, WSGI applications and single views check who is calling.

You can skip it on a first reading.
"""
