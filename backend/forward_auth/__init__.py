"""Forward-auth: proxies, WSGI applications and single views ask who is calling, and may they.

Skip it on a first reading.
"""
