"""`python -m tests.attack.flood PORT SECONDS CLIENTS PASSWORD NAME...`: sign in as these in turn.

Each of so many clients at once begins again when it has an answer. Prints {status: [milliseconds,
...]} as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle

from ..support.load import Client, drive, request


def signing_in(names: Iterator[str], password: str) -> Client:
    """A client that tries the password on one name after the other."""
    for name in names:
        body = {"username": name, "password": password}
        yield request("sign in", "POST", "/v1/auth/login", body=body)


if __name__ == "__main__":
    port, seconds, clients, password, *names = sys.argv[1:]
    turns, found = cycle(names), defaultdict(list)
    plans = [signing_in(turns, password) for _ in range(int(clients))]
    for answer in drive(int(port), float(seconds), plans):
        found[str(answer.status)].append(answer.milliseconds)
    print(json.dumps(found))
