"""Which backend has chosen a connection ID of QUIC that passes through unread, as bpf/quic.h in the kernel.

All that can be read of a packet is its head (RFC 8999): the ID that it is for, and of long headers the one
that its sender wants to be called by. IDs that a backend gives out later are encrypted. Backends answer
whoever sends a first packet, so what they say is an offer until a client names it, and those that are named
are kept apart from offers.
"""

from collections import OrderedDict

from marchproxy.policy.plan import Backend

MOST = 65536
"""IDs that are remembered, of each kind. What nobody has asked for longest goes first."""
_LONG, _SHORT = 8, 4
"""Bytes of an ID that are looked at, of those that have fewer than eight, too: of a short header nobody says
how long its ID is."""
_LONG_HEADER = 0x80
_MOST_ID = 20
"""RFC 9000 section 17.2."""
_SHORT_AT, _LENGTH_AT, _LONG_AT = 1, 5, 6
"""Where the destination's ID begins in a short header; its length, and itself, in a long one."""

type _Key = tuple[str, bytes]
"""The mapping, and the beginning of an ID."""


class QuicHomes:
    """The backends by the IDs that they have chosen."""

    def __init__(self, most: int = MOST) -> None:
        """`most`: of those that a client has named, and of the others."""
        self._homes: OrderedDict[_Key, Backend] = OrderedDict()
        self._offers: OrderedDict[_Key, Backend] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._homes) + len(self._offers)

    def learn(self, mapping: str, backend: Backend, data: memoryview) -> None:
        """A backend says this: the ID that it wants to be called by leads to it once a client names it."""
        # An offer of other versions (0) names an ID that the client has made up.
        if len(data) <= _LONG_AT or not data[0] & _LONG_HEADER or not any(data[1:_LENGTH_AT]):
            return
        at = _LONG_AT + data[_LENGTH_AT]
        if data[_LENGTH_AT] > _MOST_ID or at >= len(data):
            return
        chosen = _beginning(data[at + 1 :], data[at])
        if chosen is None:
            return
        self._remember(self._offers, (mapping, chosen), backend)

    def find(self, mapping: str, data: memoryview) -> Backend | None:
        """The backend that has chosen the ID that a client's packet is for; None: none has.

        To be asked about each long header of a client: who names an offer has heard it, and it is kept.
        """
        if len(data) <= _LONG_AT:
            return None
        if data[0] & _LONG_HEADER:
            tried = [_beginning(data[_LONG_AT:], data[_LENGTH_AT])]
        else:
            tried = [_beginning(data[_SHORT_AT:], size) for size in (_LONG, _SHORT)]
        for chosen in tried:
            key = mapping, chosen or b""
            found = self._offers.pop(key, None) or self._homes.get(key)
            if found is not None:
                self._remember(self._homes, key, found)
                return found
        return None

    def _remember(self, into: OrderedDict[_Key, Backend], key: _Key, backend: Backend) -> None:
        into[key] = backend
        into.move_to_end(key)
        if len(into) > self._most:
            into.popitem(last=False)


def is_long(data: memoryview) -> bool:
    """Whether it is a long header, as a handful of a connection's packets have."""
    return bool(data) and bool(data[0] & _LONG_HEADER)


def _beginning(data: memoryview, length: int) -> bytes | None:
    """What is looked at of an ID of this length; None: it is too short for that, or not all there."""
    size = _LONG if length >= _LONG else _SHORT
    return bytes(data[:size]) if length >= size <= len(data) else None
