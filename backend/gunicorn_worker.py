"""gunicorn's threaded worker, which fails nobody when it is told to end."""

from __future__ import annotations

import functools

from gunicorn.workers.gthread import ThreadWorker

from .listeners import stop_listening


class DrainingWorker(ThreadWorker):
    """Takes what has connected, then stops listening at once.

    By itself gunicorn listens on to its end, and resets whoever has connected meanwhile.
    """

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to take connections; gunicorn does so once more when it is to end."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            self.wsgi.extensions["backend"].draining.set()
            for listener in self.sockets:
                stop_listening(listener.sock, functools.partial(self.accept, listener))
