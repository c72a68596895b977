"""One captured packet, and where captured packets come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from marchproxy.model.reason import Reason, Tier


class CaptureKind(StrEnum):
    """At which moment the packet was taken."""

    CAME = "came"
    """Of a flow, before anything was rewritten."""
    LEFT = "left"
    """The same packet, as it was sent on."""
    DENIED = "denied"
    AUDITED = "audited"
    """Would have been denied, and was let through."""


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """An Ethernet frame, and what was decided about it."""

    time: int
    """Nanoseconds since the epoch."""
    kind: CaptureKind
    interface: str
    """By which it came or left; empty where it is gone."""
    tier: Tier
    reason: Reason
    mapping: str
    """Qualified name, empty where none decided."""
    flow: int
    """0 for a refused packet."""
    reply: bool
    """Backend to client."""
    resolved: bool
    """Whether the link addresses are those that it leaves with: the kernel fills in a few of them later."""
    length: int
    """Bytes of the frame, of which `data` may be the beginning."""
    segments: int
    """Packets on the wire: more than one of a frame whose segmentation is offloaded."""
    data: bytes

    @property
    def comment(self) -> str:
        """What a person wants to know beside the bytes: words of the form name=value."""
        words = [f"reason={self.reason.name}"]
        if self.mapping:
            words.append(f"mapping={self.mapping}")
        if self.flow:
            words += [f"flow={self.flow}", f"direction={'reply' if self.reply else 'request'}"]
        words += [f"taken={self.kind}", f"tier={self.tier.name.lower()}"]
        if self.segments > 1:
            words.append(f"segments={self.segments}")
        if not self.resolved:
            words.append("link-addresses=unresolved")
        return " ".join(words)


class Feed(Protocol):
    """Packets as they are captured, until `close`. Who does not read for `STALE` seconds has given up."""

    async def read(self) -> Sequence[CapturedPacket]:
        """What has been captured since the last call, in order of time."""

    @property
    def missed(self) -> int:
        """Packets so far that came faster than the rate, or for which there was no room."""

    async def close(self) -> None:
        """Stop capturing. May be repeated."""


STALE = 10.0
"""Seconds."""
