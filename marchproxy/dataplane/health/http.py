"""The two lines of HTTP that a check needs, without I/O (RFC 9112)."""

from urllib.parse import quote

HEAD_LIMIT = 16384
"""Bytes of heads that are read before an answer is given up on; servers mostly allow half of that."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class BadAnswer(Exception):
    """What came is no HTTP answer; the text says why."""


def request(method: str, path: str, host: str, port: int) -> bytes:
    """A GET over `http` or `https`, after whose answer the server closes. `host`: a name or an address."""
    authority = f"[{host}]" if ":" in host else host
    if port != _DEFAULT_PORTS[method]:
        authority += f":{port}"
    lines = (
        f"GET {quote(path, safe="/?&=%:@!$'()*+,;~-._[]")} HTTP/1.1",
        f"Host: {authority}",
        "User-Agent: marchproxy-health",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


class StatusReader:
    """Reads up to the status of the final answer; interim ones (1xx) are passed over."""

    def __init__(self) -> None:
        self._held = b""
        self._taken = 0

    def feed(self, data: bytes) -> int | None:
        """Take in what came; the status once it is known. Raises `BadAnswer`."""
        self._taken += len(data)
        self._held += data
        while b"\n" in self._held:
            status = _status(self._held.partition(b"\n")[0])
            if status >= 200:
                return status
            _, found, rest = self._held.partition(b"\r\n\r\n")
            if not found:
                break
            self._held = rest
        if self._taken > HEAD_LIMIT:
            raise BadAnswer(f"no HTTP status within {HEAD_LIMIT} bytes")
        return None


def _status(line: bytes) -> int:
    version, _, rest = line.rstrip(b"\r").partition(b" ")
    digits = rest[:3]
    ends = len(rest) == 3 or rest[3:4] == b" "
    if not version.startswith(b"HTTP/1.") or not (digits.isdigit() and ends and digits >= b"100"):
        raise BadAnswer("the answer is not HTTP/1")
    return int(digits)
