"""The entry point: `python wsgi.py`, `gunicorn wsgi:app`, `flask --app wsgi COMMAND`."""

from backend.wsgi import app, application, main

__all__ = ["app", "application"]

if __name__ == "__main__":
    main()
