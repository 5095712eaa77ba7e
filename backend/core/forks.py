"""What a forked process must forget: locks, threads and connections of its parent.

Skip it on a first reading.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def call_in_children(method: Callable[[], object]) -> None:
    """Call the bound method in each forked child, as long as its object is alive."""
    if hasattr(os, "register_at_fork"):  # everywhere except on Windows
        reference = weakref.WeakMethod(method)  # a registered function cannot be unregistered

        def in_child() -> None:
            if living := reference():
                living()

        os.register_at_fork(after_in_child=in_child)
