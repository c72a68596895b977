"""Batches to a log platform: a JSON array by POST, with a bearer token where one is kept."""

import asyncio
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from marchproxy.telemetry.logs.ecs import EcsEncoder
from marchproxy.telemetry.logs.records import Record
from marchproxy.telemetry.logs.sink import Refused, Unreachable

BATCH = 100
LINGER = 10.0
"""Seconds until fewer are sent, too."""
PATIENCE = 10.0
"""Seconds for each step of a request."""
ALTOGETHER = 30.0
"""Seconds for all of them."""
_LONGEST_ANSWER = 64 * 1024
_AGAIN = frozenset({401, 403, 404, 407, 408, 425, 429})
"""Answers that somebody may put right while records wait; others of 400 to 499 are about the records."""


class HttpBatches:
    """A `Delivery`. Requests are made in a thread of its own: what blocks there keeps nobody waiting."""

    most = BATCH
    linger = LINGER

    def __init__(self, url: str, version: str, token: bytes | None) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self.shown = f"{parts.scheme}://{parts.netloc}"
        """The address without its path, which may hold a secret of its own."""
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._encoder = EcsEncoder(version)
        self._headers = {"Content-Type": "application/json", "User-Agent": f"marchproxy/{version}"}
        if token:
            self._headers["Authorization"] = f"Bearer {token.decode('ascii')}"
        self._connection: HTTPConnection | None = None
        self._turn = 0
        """Requests that began before it moved on are abandoned."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-http")

    async def send(self, records: Sequence[Record]) -> int:
        """See `Delivery`."""
        body = self._encoder.encode(records)
        posting = asyncio.get_running_loop().run_in_executor(self._thread, self._post, body)
        try:
            status = await asyncio.wait_for(posting, ALTOGETHER)
        except TimeoutError:
            # Each step was in time, as of a server that sends a byte every now and then.
            self._abandon()
            raise Unreachable(f"{self.shown}: no answer within {ALTOGETHER:.0f} s") from None
        if status in _AGAIN or status >= 500:
            raise Unreachable(f"{self.shown}: HTTP {status}")
        if not 200 <= status < 300:
            raise Refused(f"{self.shown}: HTTP {status}: it does not take these records")
        return 0

    @property
    def held(self) -> int:
        """See `Delivery`."""
        return 0

    @property
    def unsettled(self) -> bool:
        """See `Delivery`. What was sent has been answered."""
        return False

    async def close(self) -> int:
        """See `Delivery`. A request that is under way is cut off."""
        self._abandon()
        self._thread.shutdown(wait=False, cancel_futures=True)
        return 0

    def _post(self, body: bytes) -> int:
        """The status of the answer. Raises `Unreachable`. In the thread."""
        fresh, turn = self._connection is None, self._turn
        try:
            return self._request(body)
        except (OSError, HTTPException) as error:
            self._cut()
            # What was abandoned is sent again by whoever keeps it, or not at all.
            if fresh or turn != self._turn or isinstance(error, TimeoutError):
                raise Unreachable(f"{self.shown}: {_why(error)}") from error
        # A connection that was kept may have been closed at the other end meanwhile.
        try:
            return self._request(body)
        except (OSError, HTTPException) as error:
            self._cut()
            raise Unreachable(f"{self.shown}: {_why(error)}") from error

    def _request(self, body: bytes) -> int:
        connection = self._connection
        if connection is None:
            kind = HTTPSConnection if self._secure else HTTPConnection
            connection = self._connection = kind(self._host, self._port, timeout=PATIENCE)
        connection.request("POST", self._path, body, self._headers)
        answer = connection.getresponse()
        if len(answer.read(_LONGEST_ANSWER)) == _LONGEST_ANSWER:
            self._cut()
        return answer.status

    def _abandon(self) -> None:
        """Nobody waits for the request that is under way."""
        self._turn += 1
        self._cut()

    def _cut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(2)
        connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:.0f} s"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
