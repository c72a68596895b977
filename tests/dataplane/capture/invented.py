"""Captured packets that never were on a wire."""

from marchproxy.dataplane.capture.packet import CapturedPacket, CaptureKind
from marchproxy.model.reason import Reason, Tier

NOON = 1_800_000_000_123_456_789

FORWARDED = CapturedPacket(
    time=NOON,
    kind=CaptureKind.CAME,
    interface="inside0",
    tier=Tier.TC,
    reason=Reason.FORWARDED,
    mapping="shop",
    flow=7,
    reply=False,
    resolved=True,
    length=1514,
    segments=1,
    data=bytes(range(61)),
)
REFUSED = CapturedPacket(
    time=NOON + 1000,
    kind=CaptureKind.DENIED,
    interface="outside0",
    tier=Tier.XDP,
    reason=Reason.NO_MAPPING,
    mapping="",
    flow=0,
    reply=False,
    resolved=True,
    length=60,
    segments=1,
    data=bytes(60),
)
