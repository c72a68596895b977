"""How following one host name goes: when it last resolved, and what is wrong since when."""

import asyncio
import time
from collections.abc import Mapping
from types import MappingProxyType

from marchproxy.dataplane.names.found import Failure, Found
from marchproxy.model.address import IPAddress

FIRST_RETRY = 5.0
LAST_RETRY = 300.0
"""Seconds until a name that does not resolve is asked again: doubled each time, from one to the other."""
SILENT_RETRY = 60.0
"""The same where the resolver is at fault: once it is back, everybody waits."""
HALF_RETRY = 30.0
"""The same where only one of IPv4 and IPv6 could be found out."""

_NOTHING: Mapping[IPAddress, str] = MappingProxyType({})


class Following:
    """One name's questions and their outcomes. Only `time.time` is asked, for people to read."""

    __slots__ = ("_tries", "asked", "failure", "is_local", "refused", "since", "ttl")

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Set once the first answer, good or bad, is in."""
        self.failure: Failure | None = None
        self.since = 0.0
        """Since when it fails; or when it last resolved, where it does not fail. Seconds since the epoch."""
        self.refused: Mapping[IPAddress, str] = _NOTHING
        """Addresses of the last answer that it may not have, and what they are."""
        self.ttl = 0.0
        """Of the last good answer, in seconds."""
        self.is_local = False
        """Whether its addresses are from the hosts file, and so may be any."""
        self._tries = 0

    def answered(self, found: Found, refused: Mapping[IPAddress, str]) -> float:
        """It has resolved; the seconds until it is worth asking again."""
        self.failure, self.since, self._tries = None, time.time(), 0
        self.refused, self.ttl, self.is_local = refused, found.ttl, found.is_local
        return min(found.ttl, HALF_RETRY) if found.unknown else found.ttl

    def failed(
        self, failure: Failure, ttl: float = 0.0, refused: Mapping[IPAddress, str] = _NOTHING
    ) -> float:
        """It has not; the seconds until it is worth asking again."""
        if self.failure is None:
            self.since = time.time()
        self.failure, self.refused = failure, refused
        self.asked.set()
        retry = min(FIRST_RETRY * (1 << self._tries), LAST_RETRY if failure.is_answer else SILENT_RETRY)
        self._tries = min(self._tries + 1, 10)
        return max(ttl, retry) if failure.is_answer and ttl else retry
