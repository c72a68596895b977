"""Who may speak before its handshake is complete (0-RTT; RFC 8446 sections 2.3 and 8, RFC 9001 section 9.2).

What comes then may have been recorded and said again, and its source is only what the packet says. So it is
taken with a ticket of ours alone, that was given to the same address (where somebody has shown to receive,
as for a token of RFC 9000 section 8.1.3), when its time is now, and once. All else goes on by a full
handshake.
"""

import struct
import time

from aioquic.tls import OfferedPsks

from marchproxy.dataplane.quic.replays import IDENTITY, Replays
from marchproxy.model.address import IPAddress

KEPT = 3600.0
"""Seconds after it was given out in which a ticket is good for it: addresses change hands."""
WINDOW = 10.0
"""Seconds by which the age of a ticket as its client has it may differ from ours (RFC 8446 section 8.3). What
is recorded is worth nothing later."""
_MEMO = struct.Struct(f"={IDENTITY}s16sd")
"""Which table knows of its use, for whom it is, and when it was given: by the monotonic clock, which all
processes share. Who has the table has the clock."""


class Early:
    """Of one client."""

    __slots__ = ("_replays", "_source")

    def __init__(self, replays: Replays, source: IPAddress) -> None:
        self._replays = replays
        self._source = source.packed.rjust(16, b"\xff")

    def memo(self) -> bytes:
        """What a ticket that is given to it has to hold."""
        return _MEMO.pack(self._replays.identity, self._source, time.monotonic())

    def takes(self, memo: bytes, age_add: int, offered: OfferedPsks | None) -> bool:
        """Whether what it says with such a ticket is taken early; then never again.

        `age_add` is of the ticket, `offered` what the client says of it. Whether it has the session's secret
        is checked afterwards, by a binder that it has not chosen: nobody else can say this one first.
        """
        if len(memo) != _MEMO.size or offered is None or len(offered.identities) != 1:
            return False
        table, source, since = _MEMO.unpack(memo)
        if table != self._replays.identity or source != self._source:
            return False
        age = time.monotonic() - since
        claimed = (offered.identities[0][1] - age_add) % 2**32 / 1000
        if not 0 <= age <= KEPT or abs(age - claimed) > WINDOW:
            return False
        return self._replays.first(b"".join(offered.binders), 2 * WINDOW)
