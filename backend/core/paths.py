"""The folders of files that ship with the code, and of those that an installation adds.

In a checkout, both are the folder of wsgi.py. A wheel has the former inside the package, and the
latter are relative to the working directory.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = _PACKAGE / "_data"  # in a wheel only: pyproject.toml puts it there

IS_CHECKOUT = not _SHIPPED.is_dir()
DATA = _PACKAGE.parent if IS_CHECKOUT else _SHIPPED  # holds config/ and migrations/
ROOT = _PACKAGE.parent if IS_CHECKOUT else Path.cwd()  # relative paths in settings start here
