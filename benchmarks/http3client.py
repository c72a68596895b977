"""Asks for small answers by HTTP/3 on connections that it keeps, and looks at each: libcurl with ngtcp2.

`python -m benchmarks.http3client TARGET PORT SECONDS CONNECTIONS CA` says `open` when all connections are,
asks from SIGUSR1 on, and prints how many answers came and in what time. A wrong answer, or a connection that
ended, ends it with an error.
"""

import json
import signal
import sys
import time
from collections.abc import Collection, Sequence
from typing import Any

import pycurl

from benchmarks.bed import ANSWER
from benchmarks.httpproxies import NAME

STREAMS = 8
"""Requests at a time on each connection."""
PATIENCE = 5.0
"""Seconds: for all connections, and at the end for what is still asked."""
LULL = 0.1
"""Seconds that it waits for packets at most; less where QUIC has a timer."""


class Unanswered(Exception):
    """What was wrong."""


class Client:
    """Requests that are asked again and again, as many as there are streams."""

    def __init__(self, target: str, port: int, connections: int, ca: str) -> None:
        """`ca`: file of the certificate that is trusted."""
        self._connections = connections
        self._opened = self._asked = 0
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, connections)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, STREAMS)
        self._bodies: dict[Any, bytearray] = {}
        for _ in range(connections * STREAMS):
            request, body = pycurl.Curl(), bytearray()
            request.setopt(pycurl.URL, f"https://{NAME}:{port}/")
            request.setopt(pycurl.CONNECT_TO, [f"::{target}:"])
            request.setopt(pycurl.CAINFO, ca)
            request.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_3ONLY)
            # Without it the first requests would open a connection each, instead of waiting for one.
            request.setopt(pycurl.PIPEWAIT, 1)
            request.setopt(pycurl.WRITEFUNCTION, body.extend)
            self._bodies[request] = body

    def open(self) -> None:
        """Until there is each connection, and nothing is asked any more."""
        ends = time.monotonic() + PATIENCE
        self._ask(self._bodies)
        while self._opened < self._connections:
            if time.monotonic() > ends:
                raise Unanswered(f"{self._opened} of {self._connections} connections after {PATIENCE:g} s")
            self._ask(self._answered())
        self._finish()

    def answers(self, seconds: float) -> tuple[int, float]:
        """How many came, and the time that it took; what is asked then is answered, too, and not counted."""
        began = time.monotonic()
        count = 0
        self._ask(self._bodies)
        while time.monotonic() < began + seconds:
            answered = self._answered()
            self._ask(answered)
            count += len(answered)
        took = time.monotonic() - began
        self._finish()
        return count, took

    def _finish(self) -> None:
        ends = time.monotonic() + PATIENCE
        while self._asked:
            if time.monotonic() > ends:
                raise Unanswered(f"{self._asked} requests without an answer for {PATIENCE:g} s")
            self._answered()

    def _ask(self, requests: Collection[Any]) -> None:
        for request in requests:
            self._multi.add_handle(request)
        self._asked += len(requests)

    def _answered(self) -> list[Any]:
        """Requests whose right answers have come; waits for a moment where none have."""
        self._multi.perform()
        _, answered, failed = self._multi.info_read()
        if failed:
            raise Unanswered(failed[0][2])
        for request in answered:
            self._multi.remove_handle(request)
            status, body = request.getinfo(pycurl.RESPONSE_CODE), self._bodies[request]
            if status != 200 or body != ANSWER.encode():
                raise Unanswered(f"a wrong answer: {status} {body.decode(errors='replace')}")
            body.clear()
            self._opened += request.getinfo(pycurl.NUM_CONNECTS)
        if self._opened > self._connections:
            raise Unanswered("a connection ended")
        self._asked -= len(answered)
        if not answered:
            timer = self._multi.timeout()
            self._multi.select(LULL if timer < 0 else min(LULL, timer / 1000))
        return list(answered)


def main(argv: Sequence[str]) -> int:
    """Exit code 1 where an answer was wrong, or none."""
    target, port, seconds, connections, ca = argv
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    client = Client(target, int(port), int(connections), ca)
    try:
        client.open()
        print("open", flush=True)
        signal.sigwait({signal.SIGUSR1})
        count, took = client.answers(float(seconds))
    except Unanswered as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"count": count, "seconds": took}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
