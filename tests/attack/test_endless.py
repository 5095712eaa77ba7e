"""Requests that never end leave the rest of the service as fast as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from backend.core.settings import ROOT

from ..support.databases import ON_SQLITE
from ..support.long_runs import FULL, Site, at
from .probes import SECONDS, probes


@ON_SQLITE
def test_chunk_sizes_and_trailers_that_never_end_disturb_nobody_while_they_come_or_afterwards(
    make_site: Callable[..., Site], figure: Callable[[str, str], None]
) -> None:
    _, [server] = make_site()
    command = [sys.executable, "-m", "tests.attack.endless", str(server.port), str(SECONDS + 1)]
    attack = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    time.sleep(0.5)
    meanwhile = probes(server, [{}], path="/healthz")
    sent = json.loads(attack.communicate()[0])
    afterwards = probes(server, [{}], path="/healthz", seconds=1)
    figure("refused", f"{sent['refused']:,} connections, {sent['bytes']:,} bytes")
    figure("/healthz meanwhile, p50 p99", f"{median(meanwhile):.1f}, {at(0.99, meanwhile):.1f} ms")
    figure("/healthz afterwards, slowest", f"{max(afterwards):.1f} ms")
    assert sent["refused"] > 60
    assert median(meanwhile) <= 200
    assert max(afterwards) <= 1000
    if FULL:  # on a machine that does nothing else
        assert at(0.99, meanwhile) <= 100
        assert max(afterwards) <= 100
