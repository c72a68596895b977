"""The life of conversations as `flow.h` means it, without tables: who is known, how far, and who owns a port.

Every conversation goes from its client through a source port of ours to the backend. Its two halves are known
by what packets arrive with: the client's one by the client, the backend's one by that port.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from marchproxy.dataplane.kernel import layouts

_WORD = 1 << 32
_PROOF_WINDOW = 1 << 20


class State(IntEnum):
    """As the programs number it."""

    OPENING = layouts.STATE_OPENING
    ANSWERED = layouts.STATE_ANSWERED
    ESTABLISHED = layouts.STATE_ESTABLISHED
    CLOSED = layouts.STATE_CLOSED


@dataclass(frozen=True)
class Segment:
    """What matters of a packet; of a datagram nothing does."""

    flags: str = ""
    sequence: int = 0
    acknowledgement: int = 0
    size: int = 0

    @property
    def opens(self) -> bool:
        """Whether it may begin a conversation."""
        return not self.flags or ("S" in self.flags and not {"A", "R"} & set(self.flags))

    @property
    def end(self) -> int:
        """What acknowledges all of it where it has a FIN."""
        return (self.sequence + self.size + 1) % _WORD


@dataclass(eq=False)
class Conversation:
    """One of them. `client` and `port` are those of its halves, which may be gone."""

    client: str
    port: int
    id: int
    state: State = State.OPENING
    answered: int = 0
    """Acknowledges the SYN of the backend."""
    fin: dict[str, int] = field(default_factory=dict)
    """By who sent it: what acknowledges it."""
    acknowledged: set[str] = field(default_factory=set)
    """Who has acknowledged the other's FIN."""
    packets: Counter[str] = field(default_factory=Counter)


OTHER = {"client": "backend", "backend": "client"}


class FlowModel:
    """What is known, and what becomes of it."""

    def __init__(self) -> None:
        self.clients: dict[str, Conversation] = {}
        self.ports: dict[int, Conversation] = {}
        self.events: list[tuple[int, int]] = []
        """Kind and conversation, of what has to be told since `told`."""

    def told(self) -> list[tuple[int, int]]:
        """What has to have been told of since the last call."""
        events, self.events = self.events, []
        return events

    def is_whole(self, talk: Conversation) -> bool:
        """Whether both halves are still there."""
        return self.clients.get(talk.client) is talk and self.ports.get(talk.port) is talk

    def from_client(self, client: str, segment: Segment) -> Conversation | None:
        """The conversation that carries it. None: nobody knows the tuple (any more)."""
        talk = self.clients.get(client)
        if talk and talk.state is not State.ESTABLISHED:
            if not self.is_whole(talk):
                del self.clients[client]
                return None
            if segment.flags and segment.opens and talk.state is State.CLOSED:
                self._forget(talk)
                return None
        if talk and talk.state is State.ANSWERED and self._proves(talk, segment):
            talk.state = State.ESTABLISHED
            if segment.flags:
                self.events.append((layouts.EVENT_START, talk.id))
        if talk:
            self._carry(talk, "client", segment)
        return talk

    def from_backend(self, port: int, segment: Segment) -> Conversation | None:
        """The conversation that carries it. None: the port is nobody's."""
        talk = self.ports.get(port)
        if talk is None:
            return None
        answers = not segment.flags or {"S", "A"} <= set(segment.flags)
        if talk.state is State.OPENING and answers and self.is_whole(talk):
            talk.state = State.ANSWERED
            talk.answered = (segment.sequence + 1) % _WORD
            if not segment.flags:
                self.events.append((layouts.EVENT_START, talk.id))
        self._carry(talk, "backend", segment)
        return talk

    def opened(self, client: str, port: int, id: int, among: range) -> Conversation:
        """The programs have given a new conversation one of the ports; AssertionError if they may not."""
        free = [each for each in among if each not in self.ports]
        before = self.ports.get(port)
        if before:
            assert not free, f"port {port} was taken away although {free} is free"
            assert before.state is not State.ESTABLISHED, "of an established flow nothing is taken"
            closed = [each for each in among if self.ports[each].state is State.CLOSED]
            assert not closed or before.state is State.CLOSED, "ended flows give way first"
            self._forget(before)
        talk = self.clients[client] = self.ports[port] = Conversation(client, port, id)
        self._carry(talk, "client", Segment("S"))
        return talk

    def refused(self, among: range) -> None:
        """The programs found no port for a new conversation; AssertionError if there was one."""
        states = [each.state for at, each in self.ports.items() if at in among]
        assert states == [State.ESTABLISHED] * len(among)

    def _forget(self, talk: Conversation) -> None:
        if self.clients.get(talk.client) is talk:
            del self.clients[talk.client]
        if self.ports.get(talk.port) is talk:
            del self.ports[talk.port]

    def _proves(self, talk: Conversation, segment: Segment) -> bool:
        if not segment.flags:
            return True
        if "A" not in segment.flags or {"S", "R"} & set(segment.flags):
            return False
        return (segment.acknowledgement - talk.answered) % _WORD < _PROOF_WINDOW

    def _carry(self, talk: Conversation, sender: str, segment: Segment) -> None:
        talk.packets[sender] += 1
        if talk.state is not State.ESTABLISHED or not segment.flags:
            return
        if "R" in segment.flags:
            self._end(talk)
            return
        if "F" in segment.flags and sender not in talk.fin:
            talk.fin[sender] = segment.end
        theirs = talk.fin.get(OTHER[sender])
        if theirs is None or "A" not in segment.flags:
            return
        if (segment.acknowledgement - theirs) % _WORD < _WORD // 2:
            talk.acknowledged.add(sender)
        if len(talk.acknowledged) == 2:
            self._end(talk)

    def _end(self, talk: Conversation) -> None:
        talk.state = State.CLOSED
        self.events.append((layouts.EVENT_END, talk.id))
