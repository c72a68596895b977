"""What a TCP socket of ours knows about its connection, sequence numbers and timestamps included."""

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import ip_address

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.dataplane.kernel.testrun import run

TCP_REPAIR, TCP_TIMESTAMP = 19, 24
"""Of <linux/tcp.h>; Python's `socket` has no names for them."""

_LINK = bytes(12) + bytes.fromhex("88b5")
"""What stands for a link header before a question to a program."""


class TcpState(IntEnum):
    """The states of <linux/tcp_states.h> that an open connection has, or one that closes."""

    ESTABLISHED = 1
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    CLOSE_WAIT = 8
    LAST_ACK = 9
    CLOSING = 11


_FIN_SENT = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.LAST_ACK, TcpState.CLOSING)


class Option(IntFlag):
    """What both ends agreed on: TCPI_OPT_… of <linux/tcp.h>."""

    TIMESTAMPS = 1
    SACK = 2
    ECN = 8
    USEC_TIMESTAMPS = 64


class Blocker(IntFlag):
    """What keeps a connection from being joined with another: `enum mp_socket_blockers`."""

    REORDERED = layouts.SOCKET_REORDERED
    URGENT = layouts.SOCKET_URGENT
    SIGNED = layouts.SOCKET_SIGNED
    LAYERED = layouts.SOCKET_LAYERED


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A connection as its local socket sees it. Sequence numbers are modulo 2^32, as on the wire."""

    state: int
    """`TcpState`, or another number of <linux/tcp.h>."""
    written: int
    """Behind the last byte that user space wrote, and behind the FIN."""
    acknowledged: int
    received: int
    """Next number expected from the peer."""
    read: int
    """Next one that user space will read. A FIN is passed over together with the last byte before it."""
    window: int
    """Bytes that the peer has room for, beyond what it acknowledged."""
    own_window: int
    """The same of our side, as the peer was told."""
    segment: int
    """Largest that can be sent now, with its TCP options, in bytes: like an announced MSS."""
    advertised: int
    """MSS that the peer was told: it sends no larger segments."""
    peer_timestamp: int
    """The newest TSval of the peer."""
    clock: int
    """Own TSval now."""
    quiet: int
    """Milliseconds since the peer was last heard of."""
    round_trip: int
    """Smoothed, in microseconds."""
    options: Option
    own_shift: int
    """That the peer applies to our windows."""
    peer_shift: int
    """That we apply to the peer's."""
    ifindex: int
    """Of the interface that the peer is at; 0: not known."""
    blockers: Blocker
    segments_in: int
    bytes_in: int
    """Payload, in order."""

    @property
    def fin_received(self) -> bool:
        """Whether the peer has closed its direction."""
        return self.state in (TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.CLOSING)

    @property
    def fin_sent(self) -> bool:
        """Whether we have closed ours."""
        return self.state in _FIN_SENT

    @property
    def end_read(self) -> int:
        """Behind the last byte that user space has read."""
        return (self.read - (self.fin_received and self.read == self.received)) & 0xFFFFFFFF

    @property
    def end_written(self) -> int:
        """Behind the last byte that user space has written."""
        return (self.written - self.fin_sent) & 0xFFFFFFFF

    @property
    def unread(self) -> int:
        """Bytes in the receive queue."""
        return _distance(self.received - self.fin_received, self.end_read)

    @property
    def unacknowledged(self) -> int:
        """Bytes in the send queue, sent or not, with the FIN as one."""
        return _distance(self.written, self.acknowledged)


class TcpSockets:
    """Asks sockets of the calling thread's network namespace."""

    def __init__(self, program: Program) -> None:
        """`program` is `marchproxy_socket` of handoff.bpf.o."""
        self._program = program

    def ask(self, sock: socket.socket) -> TcpSocket | None:
        """What a connected TCP socket knows; None where it is closed. OSError where it is no such socket."""
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        clock = sock.getsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP) & 0xFFFFFFFF
        try:
            question = layouts.SOCKET.struct.pack(arriving_key(sock), *(0 for _ in layouts.SOCKET.fields[1:]))
        except OSError:  # not connected any more
            return None
        answer = run(self._program, _LINK + question)
        _, found, *numbers = layouts.SOCKET.struct.unpack(answer.packet[len(_LINK) :])
        return _compose(numbers, info, clock) if found else None


def arriving_key(sock: socket.socket) -> bytes:
    """`mp_flow_key` of the packets that a connected socket receives. OSError where it is not connected."""
    (source, source_port, *_), (destination, port, *_) = sock.getpeername(), sock.getsockname()
    return layouts.FLOW_KEY.struct.pack(
        *(_packed(source), _packed(destination)),
        *(layouts.pack_port(source_port), layouts.pack_port(port), layouts.TCP),
    )


def _packed(address: str) -> bytes:
    """A dual-stack socket tells an IPv4 address as ::ffff:a.b.c.d, which is how it is packed anyway."""
    return layouts.pack_address(ip_address(address.partition("%")[0]))


_TIMESTAMPS_LENGTH = 12
"""Bytes, with what fills them up."""
_OPTIONS = int(Option.TIMESTAMPS | Option.SACK | Option.ECN | Option.USEC_TIMESTAMPS)


def _compose(numbers: list[int], info: bytes, clock: int) -> TcpSocket:
    (state, written, _, acknowledged, received, read, window, own_window, *rest) = numbers
    segment, peer_timestamp, ifindex, blockers = rest
    options, scales = info[5], info[6]
    last_data, last_ack = struct.unpack_from("=II", info, 52)
    (round_trip,) = struct.unpack_from("=I", info, 68)
    (advertised,) = struct.unpack_from("=I", info, 84)
    (bytes_in,) = struct.unpack_from("=Q", info, 128)
    (segments_in,) = struct.unpack_from("=I", info, 140)
    return TcpSocket(
        state=state,
        written=written,
        acknowledged=acknowledged,
        received=received,
        read=read,
        window=window,
        own_window=own_window,
        segment=segment,
        # Told without the options that each segment has.
        advertised=advertised + (_TIMESTAMPS_LENGTH if options & Option.TIMESTAMPS else 0),
        peer_timestamp=peer_timestamp,
        # The lowest bit of the option says which clock it is of.
        clock=clock & ~1 & 0xFFFFFFFF,
        quiet=min(last_data, last_ack),
        round_trip=round_trip,
        options=Option(options & _OPTIONS),
        own_shift=scales >> 4,
        peer_shift=scales & 15,
        ifindex=ifindex,
        blockers=Blocker(blockers),
        segments_in=segments_in,
        bytes_in=bytes_in,
    )


def ask_peer(sock: socket.socket) -> None:
    """Have the peer say what it has received. OSError where the socket is closed.

    Leaving repair mode sends a window probe (kernel 3.5), which every TCP answers. It takes SO_REUSEADDR away
    as well, and a connection without that keeps a later daemon from listening on its port until it is gone.
    """
    enter_repair(sock)
    leave_repair(sock)


def enter_repair(sock: socket.socket) -> None:
    """In repair mode (kernel 3.5) a socket is bound beside others, and closed without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)


def leave_repair(sock: socket.socket) -> None:
    """As every socket of ours, it is in no listener's way; see `ask_peer`."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _distance(later: int, earlier: int) -> int:
    return (later - earlier) & 0xFFFFFFFF
