"""The servers of `python wsgi.py`. Skip it on a first reading."""
