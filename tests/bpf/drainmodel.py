"""Two peers and what they had reached when their tunnel was handed off.

`Peer` is a TCP endpoint as small as can be: it sends a stream that ends with FIN, sends again what is not
acknowledged, takes what comes in any order and fits its window, and believes nothing forged (RFC 5961).
`Local` is what is left of the appliance's own socket towards a peer while the tunnel drains.
"""

from dataclasses import dataclass, field

WORD = 1 << 32
WINDOW = 4000
"""Bytes that anybody takes ahead."""
SEGMENT = 500
TOTAL = 12_000
"""Bytes of each stream; the FIN behind them is one more."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment in flight, in offsets of the two streams."""

    start: int
    size: int
    fin: bool
    heard: int
    """What it acknowledges of the other stream."""
    window: int

    @property
    def end(self) -> int:
        return self.start + self.size + self.fin


@dataclass
class Peer:
    """A client or a server."""

    name: str
    unacknowledged: int = 0
    sent: int = 0
    edge: int = WINDOW
    """How far the other side lets it send."""
    received: int = 0
    """All before is there."""
    early: set[int] = field(default_factory=set, repr=False)
    """Offsets that came ahead."""

    @property
    def is_done(self) -> bool:
        """Everything is sent and acknowledged, and has been received."""
        return self.unacknowledged == self.received == TOTAL + 1

    def new(self) -> Piece | None:
        """What it sends next; None where it may not."""
        start = self.sent
        size = min(SEGMENT, TOTAL - start, self.edge - start)
        if size < 0 or start > TOTAL or (size == 0 and start < TOTAL):
            return None
        piece = self._piece(start, size)
        self.sent = piece.end
        return piece

    def again(self) -> Piece | None:
        """What it sends again."""
        start = self.unacknowledged
        if start == self.sent:
            return None
        return self._piece(start, max(0, min(SEGMENT, TOTAL - start, self.sent - start)))

    def acknowledge(self) -> Piece:
        """That alone."""
        return Piece(self.sent, 0, False, self.received, WINDOW)

    def take(self, piece: Piece, content: bytes, wanted: bytes) -> None:
        """Whatever arrives. AssertionError for bytes that nobody sent."""
        assert content == wanted, f"{self.name} got other bytes at {piece.start}"
        assert piece.heard <= self.sent, f"{self.name} hears of {piece.heard}, and has sent {self.sent}"
        if piece.heard < self.unacknowledged - WINDOW:
            return
        self.unacknowledged = max(self.unacknowledged, piece.heard)
        self.edge = max(self.edge, piece.heard + piece.window)
        # The socket that passes bytes on had room of its own, so more may come than fits: it is sent again.
        self.early.update(range(piece.start, min(piece.end, self.received + WINDOW)))
        while self.received in self.early:
            self.early.discard(self.received)
            self.received += 1
        self.early = {each for each in self.early if each >= self.received}

    def _piece(self, start: int, size: int) -> Piece:
        return Piece(start, size, start + size == TOTAL, self.received, WINDOW)


@dataclass
class Local:
    """The appliance's socket towards one peer."""

    received: int
    """Of this peer's stream: what it has acknowledged."""
    read: int
    """And what user space has read of that, and written to the other socket."""
    unacknowledged: int
    """Of the other peer's stream."""
    sent: int

    @property
    def is_empty(self) -> bool:
        return self.read == self.received and self.unacknowledged == self.sent

    def hear(self, heard: int) -> None:
        """The copy of what its peer sends: an acknowledgement of no more than what it has sent."""
        self.unacknowledged = max(self.unacknowledged, min(heard, self.sent))

    def again(self) -> Piece | None:
        """What it sends again."""
        size = min(SEGMENT, self.sent - self.unacknowledged)
        return Piece(self.unacknowledged, size, False, self.received, WINDOW) if size else None

    def acknowledge(self) -> Piece:
        """That alone: its peer sent what it has."""
        return Piece(self.sent, 0, False, self.received, WINDOW)
