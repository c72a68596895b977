"""What the kernel is to know about a tunnel that it takes over."""

from dataclasses import dataclass

from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.kernel.tunnels import Tunnel as Remembered


@dataclass(frozen=True, slots=True)
class Ripe:
    """What the kernel is to know about a tunnel."""

    number: int
    """Of the conversation, and then of the flow."""
    mapping: str
    """The qualified name."""
    revision: int
    started: int
    """CLOCK_MONOTONIC nanoseconds."""
    remembered: Remembered


def ripe(tunnel: Tunnel) -> Ripe:
    """The same of a tunnel that is carried here."""
    conversation, verified = tunnel.conversation, tunnel.verified
    expires = verified.expires.timestamp() if verified and verified.expires else 0
    return Ripe(
        conversation.number,
        conversation.answer.mapping,
        conversation.revision,
        int(conversation.began * 1e9),
        Remembered(
            service=verified.service if verified else "",
            credential=verified.token if verified else "",
            name=conversation.name,
            expires=int(expires),
        ),
    )
