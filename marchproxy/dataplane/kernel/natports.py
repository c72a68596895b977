"""Source ports of flows towards backends, kept apart from those that the host gives to its own sockets."""

from dataclasses import dataclass

from marchproxy.dataplane.kernel.sysctls import Sysctls

EPHEMERAL = "net/ipv4/ip_local_port_range"
RESERVED = "net/ipv4/ip_local_reserved_ports"


@dataclass(frozen=True, slots=True)
class NatPorts:
    """`count` ports from `first`. The default is apart from Linux's ephemeral ports (32768 to 60999).

    A listener or a management port inside the range is harmless: flows are found by their whole tuple, and a
    tuple that a local socket or another flow has is not claimed.
    """

    first: int = 4096
    count: int = 28672

    @property
    def last(self) -> int:
        """The highest."""
        return self.first + self.count - 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def keep_apart(ports: NatPorts, sysctls: Sysctls) -> None:
    """Reserve the range where the kernel's ephemeral ports overlap it.

    A local connection that got the tuple of a flow *after* that flow claimed it would have its answers
    carried away. Reserving takes ports from automatic assignment only; binding to one by number still works.
    Raises `NotPermitted` where the sysctl cannot be written.
    """
    reserved = sysctls.read(RESERVED) or ""
    if not are_apart(ports, sysctls.read(EPHEMERAL) or "0 0", reserved):
        sysctls.set(RESERVED, ",".join(filter(None, (reserved, str(ports)))))


def are_apart(ports: NatPorts, ephemeral: str, reserved: str) -> bool:
    """Whether the host gives none of `ports` to its own sockets; the others as their sysctls say it."""
    lowest, highest = map(int, ephemeral.split())
    outside = highest < ports.first or ports.last < lowest
    return outside or any(first <= ports.first and ports.last <= last for first, last in _ranges(reserved))


def _ranges(text: str) -> list[tuple[int, int]]:
    """As the kernel writes them: `80,8000-8100`, sorted, merged."""
    pairs = (part.partition("-") for part in text.split(",") if part)
    return [(int(first), int(last or first)) for first, _, last in pairs]
