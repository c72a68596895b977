"""A conversation through the bed, and what each packet of it must come out as."""

from dataclasses import dataclass
from typing import Any, Self

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_CLIENT, FROM_SERVER, TO_CLIENT, TO_SERVER, Action, Bed, Outcome, Tier
from tests.bpf.packets import Link, Packet, Tcp, Transport, Udp, packet
from tests.bpf.reading import compare, read

NAT_PORT = 20000
"""The only one that a new bed has."""


def from_client(
    transport: Transport, source: str = "10.1.0.2", destination: str = "10.1.0.1", **fields: Any
) -> Packet:
    """A packet that arrives from the clients' side."""
    return packet(source, destination, transport, **{"link": FROM_CLIENT, **fields})


def check_frame(got: bytes, wanted: Packet | bytes) -> None:
    """Equal to the byte, or else both are printed decoded."""
    frame = wanted if isinstance(wanted, bytes) else wanted.build()
    assert got == frame, compare(got, frame)


def joined_entry(other: Packet, flags: int, id: int, place: int) -> bytes:
    """Half of an established flow of two joined connections, which goes out as `other`, reversed."""
    assert isinstance(other.transport, Tcp)
    return layouts.FLOW.struct.pack(
        *(layouts.pack_address(other.destination), layouts.pack_address(other.source)),
        *(layouts.pack_port(other.transport.destination), layouts.pack_port(other.transport.source)),
        *(0, 1, 0, 0, 0, 0, 0, bytes(6), bytes(6), layouts.STATE_ESTABLISHED, flags, 1),
        *(id, 1, 1, 1, 0, place),
    )


@dataclass(slots=True)
class Talk:
    """Both directions of a conversation: `asks` and `answers` are packets as they arrive."""

    bed: Bed
    tier: Tier
    asks: Packet
    answers: Packet

    @classmethod
    def open(cls, bed: Bed, tier: Tier, first: Packet) -> Self:
        """Send the first packet and learn from what comes out where the answers come from."""
        outcome = bed.send(tier, first)
        assert (outcome.reason, outcome.action) == (Reason.FORWARDED, Action.REDIRECT)
        sent = read(outcome.frame).packet
        assert sent is not None
        assert isinstance(sent.transport, Tcp | Udp)
        assert isinstance(first.transport, Tcp | Udp)
        ports = (sent.transport.destination, sent.transport.source)
        answers = first.but(
            source=sent.destination,
            destination=sent.source,
            link=FROM_SERVER,
            transport=Tcp(*ports, "A") if isinstance(first.transport, Tcp) else Udp(*ports),
        )
        return cls(bed, tier, first, answers)

    @classmethod
    def established(cls, bed: Bed, tier: Tier, first: Packet) -> Self:
        """Open it and let both sides be seen: a handshake, or a question, an answer and another question."""
        talk = cls.open(bed, tier, first)
        if isinstance(first.transport, Tcp):
            talk.answer(transport__flags="SA", transport__sequence=5000, transport__acknowledgement=1001)
            talk.ask(transport__flags="A", transport__sequence=1001, transport__acknowledgement=5001)
        else:
            talk.answer()
            talk.ask()
        assert bed.is_established(first)
        assert bed.is_established(talk.answers)
        return talk

    def ask(self, **changes: Any) -> Outcome:
        """A packet from the client."""
        return self.bed.send(self.tier, self.asks.but(**changes))

    def answer(self, **changes: Any) -> Outcome:
        """A packet from the backend."""
        return self.bed.send(self.tier, self.answers.but(**changes))

    def asked(self, **changes: Any) -> Packet:
        """What `ask` with the same changes must come out as, by default at the server's link address."""
        link = changes.pop("link", TO_SERVER)
        return _rewritten(self.asks.but(**changes), self.answers, link)

    def answered(self, **changes: Any) -> Packet:
        """What `answer` with the same changes must come out as, by default at the client's link address."""
        link = changes.pop("link", TO_CLIENT)
        return _rewritten(self.answers.but(**changes), self.asks, link)


def _rewritten(arrived: Packet, other: Packet, link: Link) -> Packet:
    """As the reverse of what arrives from the other side."""
    assert isinstance(other.transport, Tcp | Udp)
    return arrived.but(
        link=link,
        source=other.destination,
        destination=other.source,
        transport__source=other.transport.destination,
        transport__destination=other.transport.source,
        ttl=arrived.ttl - 1,
    )
