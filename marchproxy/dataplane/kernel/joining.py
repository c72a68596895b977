"""Whether two connections can be joined, and how: pure, told what their sockets know."""

from collections.abc import Callable
from enum import StrEnum

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.splices import Side, Splice
from marchproxy.dataplane.kernel.tcpsocket import Blocker, Option, TcpSocket, TcpState

MARGIN = 100
"""Milliseconds, see `_timestamp`."""
_MOST_MARGIN = 1000
_CARRYING = frozenset({TcpState.ESTABLISHED, TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.CLOSE_WAIT})


class HandoffRefusal(StrEnum):
    """Why a tunnel stays in user space."""

    CLOSED = "closed"
    """One of the connections is not open, or both directions have ended."""
    REORDERED = "reordered"
    """Data has arrived behind a gap: the peer was told so, and need not send it again."""
    BACKLOG = "backlog"
    """More waits to be sent than the receiver has room for: what is forwarded would overtake it in vain."""
    URGENT = "urgent"
    """Urgent data was not read."""
    SIGNED = "signed"
    """TCP-MD5 or TCP-AO: segments cannot be rewritten."""
    LAYERED = "layered"
    """Kernel TLS or the like on one of the sockets."""
    TIMESTAMPS = "timestamps"
    """One side uses them and the other does not, as with the next two."""
    SACK = "sack"
    ECN = "ecn"
    SEGMENT_SIZE = "segment-size"
    """One side sends larger segments than the other takes."""
    NOT_ATTACHED = "not-attached"
    """The packets of one side do not come in by an interface with our programs, as those of local ends."""
    SOURCE_PORT = "source-port"
    """The upstream socket's port may be given to others when it is closed: see `UpstreamPorts`."""
    TAKEN = "taken"
    """A flow has the tuple of one of the connections."""
    TABLE_FULL = "table-full"
    UNNUMBERED = "unnumbered"
    """The mapping's number in the kernel is not known yet."""
    UNSUPPORTED = "unsupported"
    """The kernel does not tell what has to be known of sockets: it has no BTF."""

    @property
    def passes(self) -> bool:
        """Whether it is worth trying again a little later."""
        return self in _PASSING


_PASSING = frozenset(
    {
        *(HandoffRefusal.REORDERED, HandoffRefusal.BACKLOG),
        *(HandoffRefusal.TABLE_FULL, HandoffRefusal.UNNUMBERED),
    }
)
_BLOCKED = {
    Blocker.URGENT: HandoffRefusal.URGENT,
    Blocker.SIGNED: HandoffRefusal.SIGNED,
    Blocker.LAYERED: HandoffRefusal.LAYERED,
    Blocker.REORDERED: HandoffRefusal.REORDERED,
}
_AGREED = {
    Option.TIMESTAMPS: HandoffRefusal.TIMESTAMPS,
    Option.SACK: HandoffRefusal.SACK,
    # A router's mark would reach an end that does not know what it means.
    Option.ECN: HandoffRefusal.ECN,
}


def may_carry(state: TcpSocket | None) -> bool:
    """Whether a connection is open, in one direction at least; None: its socket knows of none."""
    return state is not None and state.state in _CARRYING


def refusal(
    client: TcpSocket, upstream: TcpSocket, is_attached: Callable[[int], bool]
) -> HandoffRefusal | None:
    """Why these two cannot be joined now; None: they can. What does not pass is found before what does."""
    if not (may_carry(client) and may_carry(upstream)):
        return HandoffRefusal.CLOSED
    if not is_attached(client.ifindex) or not is_attached(upstream.ifindex):
        return HandoffRefusal.NOT_ATTACHED
    for option, reason in _AGREED.items():
        if (client.options ^ upstream.options) & option:
            return reason
    if _largest(client) > upstream.segment or _largest(upstream) > client.segment:
        return HandoffRefusal.SEGMENT_SIZE
    for blocker, reason in _BLOCKED.items():
        if (client.blockers | upstream.blockers) & blocker:
            return reason
    if _is_behind(client, upstream) or _is_behind(upstream, client):
        return HandoffRefusal.BACKLOG
    return None


def splice(flow: int, client: TcpSocket, upstream: TcpSocket) -> Splice:
    """How to join them, from the moment on at which user space holds no bytes of either."""
    return Splice(flow, _side(client, upstream), _side(upstream, client), draining=True)


def flags(own: TcpSocket, other: TcpSocket) -> tuple[int, int]:
    """What the entry of packets that `own` receives starts with: MP_FLOW_…, and `peer_fin_ack`.

    A FIN that user space has not passed on yet is not one of the joined connection.
    """
    found = layouts.FLAG_SPLICED
    if own.fin_received and other.fin_sent:
        found |= layouts.FLAG_FIN
    if own.fin_sent and other.fin_received:
        found |= layouts.FLAG_PEER_FIN
        if own.unacknowledged == 0:
            found |= layouts.FLAG_FIN_ACKED
    return found, own.written if own.fin_sent else 0


def _largest(own: TcpSocket) -> int:
    """The largest segments that its peer sends: as large as it was told, but not larger than it takes itself.

    Those who announce a smaller MSS do so because of their link. Should one ever send more, it is told the
    size of the way (TOO_BIG), as on every path that becomes narrower.
    """
    return min(own.advertised, own.segment)


def _is_behind(source: TcpSocket, target: TcpSocket) -> bool:
    """Whether `target`'s peer has no room for what `source`'s sends next, behind what waits for it already.

    It would be sound all the same: the sender is told of a closed window, and what it had in flight has to be
    sent again.
    """
    return source.unread + target.unacknowledged > target.window


def _side(source: TcpSocket, target: TcpSocket) -> Side:
    """For what `source` receives, on its way as if `target` had sent it."""
    return Side(
        sequence=(target.end_written - source.end_read) & 0xFFFFFFFF,
        timestamp=_timestamp(source, target),
        announced=source.peer_shift,
        expected=target.own_shift,
        # An acknowledgement may be a window off, and the peer has seen at least the present one.
        least=source.received,
        most=(source.received + source.own_window // 2) & 0xFFFFFFFF,
    )


def _timestamp(source: TcpSocket, target: TcpSocket) -> int:
    """What makes TSvals of `source`'s peer go on where those of `target` are.

    They must not fall behind what `target` still sends while the splice drains, or packets that were a little
    slower than the one which is the reference would be taken for old ones (PAWS, RFC 7323 section 5). Being
    ahead does no harm: echoes are translated back by as much, and what `target` sends itself stands before
    all that is forwarded, where the receiver remembers the timestamps of what is in order only. So the
    margin is what the way may take longer than it did, less what the peer's clock has gained since.
    """
    if not target.options & Option.TIMESTAMPS:
        return 0
    ticks = 1000 if target.options & Option.USEC_TIMESTAMPS else 1
    margin = min(MARGIN + 2 * source.round_trip // 1000, _MOST_MARGIN)
    return (target.clock + ticks * max(0, margin - source.quiet) - source.peer_timestamp) & 0xFFFFFFFF
