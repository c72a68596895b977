"""The addresses of this host."""

import socket
from ipaddress import IPv4Address

from marchproxy.model.address import IPAddress


def is_local(address: IPAddress) -> bool:
    """Whether packets to `address` end on this host, in this network namespace.

    Asked of the kernel by binding: that takes microseconds, needs no netlink, and cannot be out of date.
    """
    if address.is_unspecified or address.is_multicast:
        return False
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
