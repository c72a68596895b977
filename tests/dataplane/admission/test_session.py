"""A layer's commands, carried out."""

import socket
from contextlib import suppress
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.session import Opening, Session
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.proxy.protocol.exchange import (
    Ask,
    Bound,
    Close,
    Command,
    Elapsed,
    Ended,
    Event,
    Opened,
    Received,
    Refused,
    Relay,
    Request,
    Send,
    Speech,
    Started,
    WakeAt,
)
from marchproxy.model.reason import Reason
from tests.dataplane.loops import looped

REQUEST = Request(Speech.PREFACE, None, None)


class Script:
    """A layer that does as it is told, and remembers what it heard."""

    def __init__(self, **answers: list[Command]) -> None:
        self.heard: list[Event] = []
        self._answers = answers

    def handle(self, event: Event, now: float) -> list[Command]:
        self.heard.append(event)
        return self._answers.get(type(event).__name__.lower(), [])


class Door:
    """An `Opening`."""

    opened = Opened(ip_address("192.0.2.1"), 7)

    def __init__(self) -> None:
        self.relayed: bytes | None = None
        self.abandoned = False

    def relay(self, ahead: bytes, bound: Bound | None) -> None:
        self.relayed = ahead

    def abandon(self) -> None:
        self.abandoned = True


async def talk(
    layer: Script, answer: Opening | Refused, *said: bytes, end: bool = False, ahead: bytes = b""
) -> tuple[Close | None, bytes]:
    """How it ended, and what the client was told."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    for piece in said:
        theirs.send(piece)
    if end:
        theirs.shutdown(socket.SHUT_WR)

    async def decide(request: Request) -> Opening | Refused:
        assert request is REQUEST
        return answer

    try:
        close = await Session(Wire(ours), layer, decide, 1.0, ahead).run()
        try:
            told = theirs.recv(1000)
        except BlockingIOError:
            told = b""
        return close, told
    finally:
        ours.close()
        theirs.close()


@looped
async def test_what_is_asked_and_opened_is_relayed() -> None:
    door = Door()
    layer = Script(received=[Ask(REQUEST)], opened=[Send(b"OK"), Relay(b"early")])
    assert await talk(layer, door, b"please") == (None, b"OK")
    assert (door.relayed, door.abandoned) == (b"early", False)
    assert layer.heard == [Started(), Received(b"please"), door.opened]


@looped
async def test_what_was_read_before_comes_first() -> None:
    layer = Script(received=[Close(Reason.CLOSED)])
    await talk(layer, Door(), b"later", ahead=b"before")
    assert layer.heard == [Started(), Received(b"before")]


@looped
async def test_a_refusal_is_the_layers_to_tell() -> None:
    refused = Refused(Reason.NO_MAPPING)
    close = Close(Reason.NO_MAPPING)
    layer = Script(received=[Ask(REQUEST)], refused=[Send(b"NO"), close])
    assert await talk(layer, refused, b"please") == (close, b"NO")


@looped
async def test_the_end_and_the_deadline_are_told() -> None:
    close = Close(Reason.TOO_SLOW)
    layer = Script(started=[WakeAt(0.0)], elapsed=[close])
    assert await talk(layer, Door()) == (close, b"")
    assert layer.heard == [Started(), Elapsed()]
    layer = Script(ended=[close])
    assert await talk(layer, Door(), end=True) == (close, b"")
    assert layer.heard == [Started(), Ended()]


@pytest.mark.parametrize("commands", [[Close(Reason.MALFORMED)], [Send(b"x" * 8_000_000)]])
@looped
async def test_what_was_opened_in_vain_is_closed_again(commands: list[Command]) -> None:
    door = Door()
    layer = Script(received=[Ask(REQUEST)], opened=commands)
    with suppress(TimeoutError):
        await talk(layer, door, b"please")
    assert door.abandoned
