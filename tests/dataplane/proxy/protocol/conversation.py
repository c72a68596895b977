"""Conversations with a layer: what arrives and what follows, at once or in any pieces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.exchange import (
    MAX_AHEAD,
    Ask,
    Bound,
    Close,
    Command,
    Elapsed,
    Ended,
    Event,
    Layer,
    Opened,
    Received,
    Refused,
    Relay,
    Request,
    Send,
    Speech,
    Started,
    Unfit,
    WakeAt,
)
from marchproxy.model.reason import Reason

OPENED = Opened(ip_address("192.0.2.1"), 4711)
BEGIN = 1000.0


@dataclass
class Conversation:
    """One connection: what was sent to the client, what was asked, and how it ended."""

    layer: Layer
    now: float = BEGIN
    sent: bytes = b""
    asked: list[Request] = field(default_factory=list)
    wake_at: float | None = None
    closed: Close | None = None
    upstream: bytes | None = None
    """What went upstream; None: nothing was relayed."""
    bound: Bound | None = None

    def __post_init__(self) -> None:
        self.hear(Started())

    @property
    def over(self) -> bool:
        return self.closed is not None or self.upstream is not None

    def hear(self, event: Event) -> list[Command]:
        commands = self.layer.handle(event, self.now)
        for command in commands:
            assert not self.over, f"{command} after the end"
            self._carry_out(command)
        return commands

    def say(self, data: bytes) -> list[Command]:
        """The client sends something, which a relay passes on."""
        if self.upstream is None:
            return self.hear(Received(data))
        self.upstream += data if self.bound is None or self.bound.free else self.bound.take(data)
        return []

    def wait(self) -> list[Command]:
        """Until the layer wants to be woken."""
        assert self.wake_at is not None
        self.now, self.wake_at = self.wake_at, None
        return self.hear(Elapsed())

    def refuse(self, reason: Reason, detail: str = "") -> bytes:
        """Refuse what was asked; the words for the client."""
        already = len(self.sent)
        self.hear(Refused(reason, detail))
        assert self.closed is not None
        assert self.closed.reason is reason
        return self.sent[already:]

    def reason(self) -> Reason | None:
        return None if self.closed is None else self.closed.reason

    def _carry_out(self, command: Command) -> None:
        match command:
            case Send(data):
                assert data
                self.sent += data
            case Ask(request):
                self.asked.append(request)
                assert len(self.asked) == 1
            case WakeAt(instant):
                self.wake_at = instant
            case Relay(ahead, bound):
                self.upstream, self.bound = ahead, bound
            case Close():
                self.closed = command


def said(layer: Layer, data: bytes) -> Conversation:
    """A conversation in which the client has said this, in one piece."""
    conversation = Conversation(layer)
    conversation.say(data)
    return conversation


type Outcome = tuple[bytes, Request | None, bytes | None, Close | None]


def outcome(layer: Layer, pieces: Sequence[bytes], *, at_once: bool = False) -> Outcome:
    """What comes of these pieces and the end of them. The question is answered `at_once`, or last."""
    conversation = Conversation(layer)
    for piece in pieces:
        if conversation.closed is None and piece:
            try:
                conversation.say(piece)
            except Unfit as unfit:
                conversation.closed = Close(unfit.reason, unfit.detail)
        if at_once and conversation.asked and not conversation.over:
            conversation.hear(OPENED)
        assert held(layer) <= MAX_AHEAD
    if not conversation.over:
        conversation.hear(OPENED if conversation.asked else Ended())
    assert conversation.over
    assert held(layer) == 0
    # A question that was asked before its connection was found unfit is no part of the outcome.
    asked = conversation.asked[0] if conversation.upstream is not None else None
    return conversation.sent, asked, conversation.upstream, conversation.closed


def held(layer: Layer) -> int:
    """Bytes that a layer keeps of its client."""
    return len(getattr(getattr(layer, "_inner", None) or layer, "_held", b""))


def check_pieces(new: Callable[[], Layer], pieces: Sequence[bytes]) -> None:
    """The same must come of the pieces as of the whole, and the same go upstream whenever it is answered."""
    whole = outcome(new(), [b"".join(pieces)])
    assert outcome(new(), pieces) == whole
    asked = whole[1]
    # What follows on the connection of an association goes nowhere.
    if asked is not None and asked.speech is not Speech.ASSOCIATE:
        assert outcome(new(), pieces, at_once=True) == whole


def single(data: bytes) -> list[bytes]:
    """Bytes one by one."""
    return [data[index : index + 1] for index in range(len(data))]


@st.composite
def cut(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes in pieces."""
    whole = draw(data)
    marks = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *marks], [*marks, len(whole)], strict=True)]


@st.composite
def near(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Something like one of the seeds: bytes changed, put in or left out, and something behind it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3) | st.sampled_from(SPICE))
    return bytes(data) + draw(st.binary(max_size=20) | st.sampled_from([b"", *seeds]))


SPICE = (b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"\xff", b"@", b"[", b"]", b"%00", b"\r\n\r\n")


def hostile(seeds: Sequence[bytes]) -> st.SearchStrategy[list[bytes]]:
    """What a stranger may send, in pieces: noise, or nearly the right thing."""
    return cut(st.binary(max_size=200) | near(seeds))
