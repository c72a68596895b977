"""What all layers have in common: hold what comes, ask once, and say once how it ended."""

from abc import ABC, abstractmethod
from enum import Enum, auto

from marchproxy.dataplane.proxy.protocol.exchange import (
    MAX_AHEAD,
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
    Started,
    Unfit,
    WakeAt,
)
from marchproxy.model.reason import Reason

DEADLINE = 10.0
"""Seconds from the beginning in which a client has said what it wants."""


class _Phase(Enum):
    READING = auto()
    ASKED = auto()
    DONE = auto()


class Admission(ABC):
    """A layer that reads a request, asks about it, and becomes a relay or closes.

    Whatever raises `Unfit` while an event is handled ends the connection with that reason, after the commands
    that were given before.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._phase = _Phase.READING
        self._heard = False
        self._commands: list[Command] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        """Advance. `now` is monotonic, in seconds."""
        self._commands = []
        if self._phase is not _Phase.DONE:
            try:
                self._hear(event, now)
            except Unfit as unfit:
                self._refuse(unfit)
        return self._commands

    @abstractmethod
    def _read(self) -> None:
        """Look at `_held`, to which bytes were added, and take from it what is understood. Raises `Unfit`."""

    @abstractmethod
    def _admitted(self, opened: Opened) -> None:
        """Tell the client, and relay. Raises `Unfit`."""

    @abstractmethod
    def _told(self, unfit: Unfit) -> bytes:
        """What the client is told of its refusal; may be nothing."""

    def _begin(self, now: float) -> None:
        self._wake_at(now + DEADLINE)

    def _elapsed(self) -> None:
        raise Unfit(Reason.TOO_SLOW, f"a request has to be complete within {DEADLINE:.0f} seconds")

    # ---- for layers to say

    def _wake_at(self, instant: float | None) -> None:
        self._commands.append(WakeAt(instant))

    def _send(self, data: bytes) -> None:
        self._commands.append(Send(data))

    def _ask(self, request: Request) -> None:
        self._check_held()
        self._phase = _Phase.ASKED
        self._commands += [WakeAt(None), Ask(request)]

    def _relay(self, ahead: bytes, bound: Bound | None = None) -> None:
        self._commands.append(Relay(ahead, bound))
        self._finish()

    # ---- the course of things

    def _hear(self, event: Event, now: float) -> None:
        reading = self._phase is _Phase.READING
        match event:
            case Started():
                self._begin(now)
            case Received(data):
                self._heard = True
                self._held += data
                if reading:
                    self._read()
                self._check_held()
            case Ended() if reading:
                self._ended()
            case Elapsed() if reading:
                self._elapsed()
            case Opened() if not reading:
                self._admitted(event)
            case Refused(reason, detail) if not reading:
                raise Unfit(reason, detail)

    def _ended(self) -> None:
        if self._heard:
            raise Unfit(Reason.MALFORMED, "the connection was ended in the middle of a request")
        self._commands.append(Close(Reason.CLOSED))
        self._finish()

    def _check_held(self) -> None:
        if len(self._held) > MAX_AHEAD:
            raise Unfit(Reason.MALFORMED, f"more than {MAX_AHEAD} bytes before an answer")

    def _refuse(self, unfit: Unfit) -> None:
        told = self._told(unfit)
        if told:
            self._send(told)
        self._commands.append(Close(unfit.reason, unfit.detail))
        self._finish()

    def _finish(self) -> None:
        self._phase = _Phase.DONE
        self._held.clear()
