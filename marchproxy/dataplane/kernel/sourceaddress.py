"""The appliance's own address towards a backend."""

import socket
from ipaddress import ip_address

from marchproxy.model.address import IPAddress

_DISCARD_PORT = 9


def source_towards(destination: IPAddress) -> IPAddress | None:
    """The source address that the kernel's routing would choose; None without a route.

    Asked by connecting a UDP socket, which sends nothing and follows policy routing exactly; 4 µs, where a
    netlink question takes ten times that.
    """
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(destination), _DISCARD_PORT))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])
