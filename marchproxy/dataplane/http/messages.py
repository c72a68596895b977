"""Requests and responses, whatever version of HTTP they came by."""

from dataclasses import dataclass, field

type Fields = tuple[tuple[str, str], ...]
"""Names in lower case, values as Latin-1, in the order of the sender."""


@dataclass(slots=True)
class Request:
    """What a client wants; its body comes by itself."""

    method: str
    authority: str
    """As the client wrote it: a host, and a port if it gave one."""
    host: str
    """In lower case, without port; empty: none was given (HTTP/1.0)."""
    target: str
    """Path and query as they go on, or `*`."""
    path: str
    """As `canonical_path` gives it."""
    fields: Fields
    """Without what concerns the connection or the framing."""
    length: int | None
    """Bytes of the body; None: known at its end."""
    version: str
    """`1.0`, `1.1`, `2` or `3`."""
    keeps: bool = True
    """The client would go on with the connection."""
    websocket: bool = False
    """It asks to become a WebSocket."""
    trailers: bool = False
    """The client takes trailers."""
    early: bool = False
    """It goes on before its client's handshake is complete (RFC 8470)."""
    given_id: str | None = None
    """The id that it came with; None: nobody has looked (`tracing.settle_id`)."""
    about: Fields = ()
    """What its backend is told about the client."""
    encoded: bytes = b""
    """The head as it went to a backend; what a client says again need not be written again."""
    head: bytes = b""
    """As it came by HTTP/1; empty: it may mean something else the next time."""


@dataclass(slots=True)
class Response:
    """What a backend answers."""

    status: int
    phrase: str
    fields: Fields
    length: int | None
    """As of `Request`; of an answer without body, what it would have."""
    bodiless: bool = False
    """No body follows, whatever the length says: to HEAD, 204, 304 and 1xx."""
    keeps: bool = True
    """The backend would go on with the connection."""
    encoded: dict[tuple[str, bool], bytes] = field(default_factory=dict)
    """The head for a client, by its version and whether its connection goes on."""

    @property
    def interim(self) -> bool:
        """Whether another one follows (1xx, but for the last before a switch of protocols)."""
        return 100 <= self.status < 200 and self.status != 101
