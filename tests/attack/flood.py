"""`python -m tests.attack.flood PORT SECONDS NAME...`: sign in as these, from 16 clients at once.

Prints {status: [milliseconds, ...]} as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle

from ..load import CLIENTS, Client, drive, request


def signing_in(names: Iterator[str]) -> Client:
    """A client that tries a wrong password on one name after the other."""
    for name in names:
        body = {"username": name, "password": "not the right password"}
        yield request("guess", "POST", "/v1/auth/login", body=body)


if __name__ == "__main__":
    names, found = cycle(sys.argv[3:]), defaultdict(list)
    plans = [signing_in(names) for _ in range(CLIENTS)]
    for answer in drive(int(sys.argv[1]), float(sys.argv[2]), plans):
        found[str(answer.status)].append(answer.milliseconds)
    print(json.dumps(found))
