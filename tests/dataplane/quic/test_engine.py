"""The state machine with our limits, between two of them without a network."""

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionIdIssued, QuicEvent, StreamDataReceived
from aioquic.quic.rangeset import RangeSet
from aioquic.tls import Epoch, SessionTicket

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.credentials.keypairs import KeyPairs
from marchproxy.dataplane.quic import engine
from marchproxy.dataplane.quic.engine import MOST_GAPS, STREAM_WINDOW, STREAMS, WINDOW, Engine
from marchproxy.dataplane.quic.steering import Steering
from tests.certificates import authority, identity

CLIENT, SERVER = ("192.0.2.1", 1000), ("192.0.2.2", 443)


class Pair:
    """A client and an engine; what each says the other hears."""

    def __init__(self, *, connects: bool = True, **more: object) -> None:
        contexts = Contexts()
        contexts.learn([identity("proxy", "proxy.example")])
        choose = KeyPairs(contexts).chooser(["proxy"])
        assert choose is not None
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=["h3"],
            server_name="proxy.example",
            cadata=authority().chain.encode(),
            **more,  # type: ignore[arg-type]
        )
        self.now = 1.0
        self.tickets: list[SessionTicket] = []
        self.client = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.client.connect(SERVER, self.now)
        self.engine = Engine(
            Steering(bytes(32), 3, 5), choose, self.client.original_destination_connection_id, None
        )
        self.address = CLIENT
        if connects:
            self.run()

    def run(self) -> list[QuicEvent]:
        """Until both are silent; what the engine has to tell."""
        told: list[QuicEvent] = []
        for _ in range(2000):
            said = self.client.datagrams_to_send(self.now)
            for data, _ in said:
                self.engine.receive_datagram(data, self.address, self.now)
            while (event := self.engine.next_event()) is not None:
                told.append(event)
            answers = [] if self.engine.unheard else self.engine.datagrams_to_send(self.now)
            for data, to in answers:
                if to == self.address:
                    self.client.receive_datagram(data, SERVER, self.now)
            while self.client.next_event() is not None:
                pass
            self.now += 0.03
            if not said and not answers:
                return told
        raise AssertionError("they never stop")


def data(told: list[QuicEvent]) -> int:
    return sum(len(event.data) for event in told if isinstance(event, StreamDataReceived))


def test_a_client_may_send_as_much_as_was_taken() -> None:
    pair = Pair()
    pair.client.send_stream_data(0, bytes(4 * WINDOW))
    assert data(pair.run()) == STREAM_WINDOW
    assert data(pair.run()) == 0
    pair.engine.take(0, STREAM_WINDOW // 8)
    assert data(pair.run()) == 0
    pair.engine.take(0, STREAM_WINDOW // 8)
    assert data(pair.run()) == STREAM_WINDOW // 4
    came = 0
    for _ in range(40):
        pair.engine.take(0, STREAM_WINDOW // 2)
        came += data(pair.run())
    assert came == 4 * WINDOW - STREAM_WINDOW - STREAM_WINDOW // 4


def test_streams_share_what_a_connection_may_have() -> None:
    pair = Pair()
    for stream in range(0, 40, 4):
        pair.client.send_stream_data(stream, bytes(STREAM_WINDOW))
    assert data(pair.run()) == WINDOW


def test_what_a_client_takes_back_is_room_again() -> None:
    """Also what it had sent, and what got lost."""
    pair = Pair()
    for stream in range(0, 200, 4):
        pair.client.send_stream_data(stream, bytes(100_000))
        came = data(pair.run())
        assert came == 100_000, stream
        pair.engine.take(stream, came // 2)
        pair.client.reset_stream(stream, 0)
        pair.run()
        pair.engine.forgo(stream)
        pair.run()


def test_streams_are_counted() -> None:
    pair = Pair()
    assert pair.client._remote_max_streams_bidi == STREAMS
    pair.client.send_stream_data(4 * STREAMS, b"one too many")
    pair.run()
    assert pair.engine._local_max_streams_bidi.used <= STREAMS


def test_connection_ids_lead_here_and_prove_what_they_are() -> None:
    pair = Pair()
    issued = {each.cid for each in pair.engine._host_cids}
    assert pair.engine.host_cid in issued
    assert {each[0] % 5 for each in issued} == {3}
    known = {each.cid: each.stateless_reset_token for each in pair.client._peer_cid_available}
    assert set(known) < issued
    steering = Steering(bytes(32), 3, 5)
    assert known == {each: steering.reset_token(each) for each in known}


def test_a_client_that_retires_ids_gets_others() -> None:
    pair = Pair()
    told: list[QuicEvent] = []
    for _ in range(5):
        pair.client.change_connection_id()
        pair.client.send_ping(1)
        told += pair.run()
    assert len({event.connection_id for event in told if isinstance(event, ConnectionIdIssued)}) >= 4


def test_an_address_is_shown_by_answering_there() -> None:
    pair = Pair()
    assert pair.engine.shown == CLIENT
    pair.address = ("192.0.2.77", 5)
    pair.client.send_ping(1)
    for datagram, _ in pair.client.datagrams_to_send(pair.now):
        pair.engine.receive_datagram(datagram, pair.address, pair.now)
    assert pair.engine.shown is None
    pair.run()
    assert pair.engine.shown == pair.address


def test_nobody_sends_before_the_handshake() -> None:
    """What aioquic would give out by itself says that one may."""
    pair = Pair()
    assert pair.engine.tls.new_session_ticket_cb is None
    assert not pair.client.tls.session_resumed
    [ticket] = pair.tickets
    assert ticket.max_early_data_size is None


@pytest.mark.parametrize("ended", [False, True])
def test_unsent_bytes_are_known(ended: bool) -> None:
    pair = Pair(max_stream_data=1000)
    pair.client.send_stream_data(0, b"?", end_stream=True)
    pair.run()
    assert pair.engine.can_send(0)
    pair.engine.send_stream_data(0, bytes(5000), end_stream=ended)
    assert pair.engine.unsent(0) == 5000
    assert pair.engine.can_send(0) is not ended
    pair.client._local_max_stream_data_bidi_local = 10_000
    pair.run()
    assert pair.engine.unsent(0) == 0
    assert pair.engine.unsent(400) == 0


def test_a_stream_in_single_bytes_with_gaps_is_the_end() -> None:
    """Each costs a walk along all of them."""
    pair = Pair()
    pair.client.send_stream_data(0, bytes(4 * MOST_GAPS))
    sender = pair.client._streams[0].sender
    # Every other byte, as if the ones between were lost.
    sender._pending = RangeSet([range(each, each + 1) for each in range(1, 4 * MOST_GAPS, 2)])
    pair.run()
    assert pair.engine.closing
    assert len(pair.engine._streams[0].receiver._ranges) < MOST_GAPS + 20


def test_a_hello_in_single_bytes_with_gaps_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """That costs who sends it nothing, not even an address."""
    monkeypatch.setattr(engine, "MOST_GAPS", 16)
    pair = Pair(connects=False)
    stream = pair.client._crypto_streams[Epoch.INITIAL].sender
    stream._pending = RangeSet([range(each, each + 1) for each in range(1, 80, 2)])
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.engine.receive_datagram(data, CLIENT, pair.now)
    assert pair.engine.closing
