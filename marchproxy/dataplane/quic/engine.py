"""aioquic's state machine with our limits. All that depends on its inside is here (and, of HTTP/3, in
`http/http3/framing.py`): written against aioquic 1.7.2, which `requirements.lock` holds.

What it does not do by itself:

* A limit on pieces that arrive out of order, each of which costs as much as there are.
* Back-pressure. It opens its windows twice as wide whenever half is used, whether anybody takes what came.
  Here they open by what was taken.
* A certificate for each name.
* Certificates of clients, which it asks for in tests only, and takes whoever has signed them.
* Connection IDs of our making.

* Tickets that another process can read. And it takes what is said before the handshake is complete (0-RTT) of
  whoever has one; here who offers that, and may not (`early`), is not resumed, nor is who has to show a
  certificate.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic import connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    Limit,
    NetworkAddress,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.stream import QuicStream
from aioquic.tls import (
    Alert,
    AlertBadCertificate,
    AlertDescription,
    ClientHello,
    SessionTicket,
    pull_client_hello,
    push_new_session_ticket,
)
from cryptography import x509
from cryptography.x509 import Certificate

from marchproxy.dataplane.quic.early import Early
from marchproxy.dataplane.quic.packets import VERSIONS
from marchproxy.dataplane.quic.sessions import Sessions
from marchproxy.dataplane.quic.steering import CONNECTION_ID, Steering
from marchproxy.policy.plan import ClientTls

# Strangers have it warn whenever they like.
logging.getLogger("quic").setLevel(logging.ERROR)

WINDOW = 512 * 1024
"""Bytes that a client may have on the way, or have sent ahead of who takes them, on one connection."""
STREAM_WINDOW = 256 * 1024
"""The same on one stream."""
STREAMS = 100
"""Requests at one time (RFC 9114 section 6.1 wants as many at least)."""
ONE_WAY_STREAMS = 16
IDLE = 60.0
"""Seconds of silence after which a connection is over."""
DATAGRAM = 1232
"""Bytes of UDP payload that go through every IPv6 network (RFC 8200 section 5: 1280 with headers)."""
MOST_GAPS = 512
"""Pieces of one stream that have come with gaps between them. A window of whole packets has 120 at most; each
one more costs a walk along all of them, and of single bytes there could be a hundred thousand."""
_IDS = 4
"""Connection IDs of one connection at one time."""


type Check = Callable[[Certificate | None, Sequence[Certificate]], str]
"""Why a client may not go on who shows this, and others beside it; empty: it may. None: it shows nothing."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a client is asked for in its handshake."""

    asked: ClientTls
    check: Check


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with what leads to its CA, and its key."""

    chain: tuple[Certificate, ...]
    key: Any
    sessions: Sessions
    """What resumes those that began with it."""
    demand: Demand | None = None
    """None: clients are asked for nothing."""
    early: Early | None = None
    """Of a client that may speak before its handshake is complete; None: it may not."""


type Choose = Callable[[str], KeyPair]
"""The certificate for a name that a client gives in TLS; empty: it gives none."""


class CertificateRequired(Alert):
    """The client has shown none, and must."""

    description = AlertDescription.certificate_required


class Engine(QuicConnection):
    """The server's side of a connection."""

    def __init__(self, steering: Steering, choose: Choose, original: bytes, retried: bytes | None) -> None:
        """`original`: the ID that the client made up; `retried`: that of a Retry that it followed."""
        first = choose("")
        super().__init__(
            configuration=QuicConfiguration(
                is_client=False,
                alpn_protocols=["h3"],
                connection_id_length=CONNECTION_ID,
                congestion_control_algorithm="cubic",
                idle_timeout=IDLE,
                max_data=WINDOW,
                max_stream_data=STREAM_WINDOW,
                max_datagram_size=DATAGRAM,
                supported_versions=list(VERSIONS),
                certificate=first.chain[0],
                certificate_chain=list(first.chain[1:]),
                private_key=first.key,
            ),
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        self.demand: Demand | None = None
        """What the client was asked for."""
        self._steering = steering
        self._choose = choose
        self._all_taken = 0
        self._taken: dict[int, int] = {}
        """By stream: bytes of it that somebody has taken."""
        self._silenced: set[int] = set()
        """Streams on which something could still be said when the client asked that nothing be."""
        self._host_cids = [self._new_id(0)]
        self._host_cids[0].was_sent = True
        self.host_cid = self._local_initial_source_connection_id = self._host_cids[0].cid
        self._local_active_connection_id_limit = _IDS
        self._local_max_streams_bidi = Limit(QuicFrameType.MAX_STREAMS_BIDI, "max_streams_bidi", STREAMS)
        self._local_max_streams_uni = Limit(QuicFrameType.MAX_STREAMS_UNI, "max_streams_uni", ONE_WAY_STREAMS)

    @property
    def unheard(self) -> bool:
        """Whether nothing has come yet that could be read."""
        return self._state is connection.QuicConnectionState.FIRSTFLIGHT

    @property
    def closing(self) -> bool:
        """Whether one of both has said that it is over."""
        return self._close_pending or self._state in connection.END_STATES

    @property
    def shown(self) -> NetworkAddress | None:
        """The address of the client, once it has shown that it receives there; None: it is not shown yet.

        Whoever knows the connection can send in another's name, and that must not open what is for the other.
        """
        path = self._network_paths[0]
        return path.addr if path.is_validated else None

    @property
    def peer(self) -> Certificate | None:
        """What the client has shown, once its handshake is complete: it is its own, and was taken."""
        return self.tls._peer_certificate

    @property
    def early(self) -> bool:
        """Whether what is said before the handshake is complete is taken."""
        return not self.unheard and self.tls.early_data_accepted

    def take(self, stream: int, size: int) -> None:
        """Somebody has taken `size` bytes that came on a stream: as many more may come."""
        self._all_taken += size
        limit = self._local_max_data
        # In steps, so that not every packet has a frame about it.
        if self._all_taken + WINDOW - limit.value >= WINDOW // 4:
            limit.value = self._all_taken + WINDOW
        found = self._streams.get(stream)
        if found is None or found.receiver.is_finished:
            self._taken.pop(stream, None)
            return
        taken = self._taken[stream] = self._taken.get(stream, 0) + size
        if taken + STREAM_WINDOW - found.max_stream_data_local >= STREAM_WINDOW // 4:
            found.max_stream_data_local = taken + STREAM_WINDOW

    def forgo(self, stream: int) -> None:
        """The client has ended a stream early, and all that came of it is taken.

        What never came of it is room again.
        """
        found = self._streams.get(stream)
        taken = self._taken.pop(stream, 0)
        if found is not None:
            self.take(stream, max(0, found.receiver.highest_offset - taken))

    def unsent(self, stream: int) -> int:
        """Bytes of a stream that the client does not have yet, as far as we know."""
        found = self._streams.get(stream)
        return 0 if found is None else found.sender._buffer_stop - found.sender._buffer_start

    def can_send(self, stream: int) -> bool:
        """Whether anything may be said on a stream; if not, the client has asked that nothing be."""
        found = self._streams.get(stream)
        if found is None or self.closing:
            return False
        sender = found.sender
        return not (
            sender.is_finished or sender._reset_error_code is not None or sender._buffer_fin is not None
        )

    def silenced(self, stream: int) -> bool:
        """Whether it was the client who ended what is said on a stream; true once."""
        ours = stream in self._silenced
        self._silenced.discard(stream)
        return ours

    def refuse_more(self, stream: int, code: int) -> None:
        """Ask the client to send nothing more on a stream, if it still does."""
        found = self._streams.get(stream)
        if found is not None and not found.receiver.is_finished:
            found.receiver.stop(code)

    # ---- of QuicConnection

    def _new_id(self, number: int) -> QuicConnectionId:
        made = self._steering.connection_id()
        return QuicConnectionId(made, number, self._steering.reset_token(made))

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(_IDS, self._remote_active_connection_id_limit):
            self._host_cids.append(self._new_id(self._host_cid_seq))
            self._host_cid_seq += 1

    def _handle_stop_sending_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        number = _stream_of(buf)
        spoken = number in self._streams and not self.can_send(number)
        super()._handle_stop_sending_frame(context, frame_type, buf)
        if not spoken:
            self._silenced.add(number)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        number = _stream_of(buf)
        super()._handle_stream_frame(context, frame_type, buf)
        self._look_for_gaps(self._streams.get(number), frame_type)

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        self._look_for_gaps(self._crypto_streams[context.epoch], frame_type)

    def _look_for_gaps(self, stream: QuicStream | None, frame_type: int) -> None:
        if stream is not None and len(stream.receiver._ranges) > MOST_GAPS:
            why = "too many pieces with gaps between them"
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, frame_type, why)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        answer = self.tls._server_handle_hello

        def hello(said: Buffer, *answers: Buffer) -> None:
            heard = pull_client_hello(Buffer(data=said.data_slice(0, said.capacity)))
            host = heard.server_name or ""
            found = self._choose(host)
            self.tls.certificate, *self.tls.certificate_chain = found.chain
            self.tls.certificate_private_key = found.key
            self.demand = found.demand
            self.tls._request_client_certificate = found.demand is not None
            if found.demand is None:
                self._give_ticket(found, host)
                self.tls.get_session_ticket_cb = lambda ticket: _resumed(found, ticket, host, heard)
            answer(said, *answers)

        # The key has to be there before the signature is agreed on, which is the first thing that it does.
        setattr(self.tls, "_server_handle_hello", hello)  # noqa: B010
        take = self.tls._server_handle_certificate

        def certificate(said: Buffer) -> None:
            # That it is the client's own is what follows, and without which nothing is complete.
            try:
                take(said)
            except x509.InvalidVersion as error:
                # aioquic expects ValueError alone of what cannot be read.
                raise AlertBadCertificate(str(error)) from error
            tls = self.tls
            why = self.demand.check(tls._peer_certificate, tls._peer_certificate_chain) if self.demand else ""
            if why:
                raise (AlertBadCertificate if tls._peer_certificate else CertificateRequired)(why)

        setattr(self.tls, "_server_handle_certificate", certificate)  # noqa: B010

    def _give_ticket(self, pair: KeyPair, host: str) -> None:
        """Once the client has finished, have it told how it may go on later."""
        finish = self.tls._server_handle_finished

        def finished(said: Buffer, answer: Buffer) -> None:
            finish(said, answer)
            if self.tls._psk_key_exchange_mode is not None:
                ticket = pair.sessions.ticket(early=pair.early is not None)
                began = self.tls._build_session_ticket(ticket, [])
                memo = pair.early.memo() if pair.early else b""
                ticket.ticket = pair.sessions.seal(began, host, memo)
                push_new_session_ticket(answer, ticket)

        setattr(self.tls, "_server_handle_finished", finished)  # noqa: B010

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: Any) -> None:
        data = self._local_max_data
        used = data.used
        # It asks whether half is used, and doubles.
        data.used = 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            data.used = used

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: Any, stream: QuicStream) -> None:
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        highest, stream.receiver.highest_offset = stream.receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            stream.receiver.highest_offset = highest


def _stream_of(buf: Buffer) -> int:
    """Which stream a frame is about that is read next."""
    begins = buf.tell()
    number = buf.pull_uint_var()
    buf.seek(begins)
    return number


def _resumed(pair: KeyPair, ticket: bytes, host: str, hello: ClientHello) -> SessionTicket | None:
    """The session that a client goes on with; None: it begins a new one, and says anew what it said early."""
    opened = pair.sessions.open(ticket, host)
    if opened is None or not hello.early_data:
        return opened.session if opened else None
    early, session = pair.early, opened.session
    taken = early is not None and early.takes(opened.memo, session.age_add, hello.pre_shared_key)
    return session if taken else None
