"""Small answers by HTTP/3. `http3client` asks for them: Debian's h2load has no HTTP/3."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.httpproxies import QUIC, Reader, certificate
from benchmarks.opened import opened

CONNECTIONS = 16
"""As h2load has. All are of one program: two programs with half as many each need more processor time."""


@contextmanager
def kept(contender: Reader, seconds: int) -> Iterator[Callable[[], float]]:
    """Open connections; what is called within gives answers a second."""
    chain, _ = certificate(contender.bed)
    argv = [sys.executable, "-m", "benchmarks.http3client", contender.target, str(QUIC), str(seconds)]
    with opened(contender.bed, [*argv, str(CONNECTIONS), str(chain)], seconds) as go_on:

        def answers() -> float:
            ran = json.loads(go_on())
            return float(ran["count"] / ran["seconds"])

        yield answers
