"""What a host learns from ICMP: the hops of a way, and what an error says. Functions for `Host.call`."""

import select
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

type Kind = Literal["udp", "icmp"]

TIMEOUT = 20.0
_ECHO = {4: 8, 6: 128}
_RECEIVE_ERRORS = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
"""IP_RECVERR and IPV6_RECVERR."""
_TTL = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
"""IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, of which 2 is: always say not to fragment."""
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""`struct sock_extended_err` of <linux/errqueue.h>; the address of who sent it follows."""

PINGERS = {"net.ipv4.ping_group_range": "0 2147483647"}
"""The sysctl without which nobody may open the sockets used here for echo."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one packet."""

    sender: str
    """Of an error; of an answer the address that was asked."""
    type: int = -1
    """ICMP type and code of an error; -1: it is an answer."""
    code: int = -1
    info: int = 0
    """The MTU, where the error says one."""


def probe(address: str, *, ttl: int = 64, kind: Kind = "udp", size: int = 32, port: int = 33434) -> Answer:
    """Send one packet of `size` bytes of payload, not to be fragmented. Raises `TimeoutError`."""
    version = ip_address(address).version
    with _open(version, kind) as sock:
        sock.setsockopt(*_TTL[version], ttl)
        sock.setsockopt(*_RECEIVE_ERRORS[version], 1)
        sock.setsockopt(*_DISCOVER[version], 2)
        sock.connect((address, port))
        payload = bytes(size)
        sock.send(payload if kind == "udp" else struct.pack("!BBHHH", _ECHO[version], 0, 0, 0, 1) + payload)
        return _wait(sock, address)


def trace(address: str, *, kind: Kind = "udp", most: int = 8) -> list[str]:
    """The hops to an address, itself included. Raises `TimeoutError` where one says nothing."""
    hops: list[str] = []
    for ttl in range(1, most + 1):
        answer = probe(address, ttl=ttl, kind=kind)
        hops.append(answer.sender)
        if answer.sender == address or (answer.type, answer.code) not in {(11, 0), (3, 0)}:
            break
    return hops


def _open(version: int, kind: Kind) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    return socket.socket(family, socket.SOCK_DGRAM, protocol if kind == "icmp" else 0)


def _wait(sock: socket.socket, address: str) -> Answer:
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLERR)
    ready = poll.poll(TIMEOUT * 1000)
    if not ready:
        raise TimeoutError(f"{address} says nothing")
    if ready[0][1] & select.POLLERR:
        _, ancillary, _, _ = sock.recvmsg(65536, 512, socket.MSG_ERRQUEUE)
        return _read(ancillary[0][2])
    sock.recv(65536)
    return Answer(address)


def _read(raw: bytes) -> Answer:
    _, _, kind, code, _, info, _ = _EXTENDED_ERROR.unpack_from(raw)
    family = int.from_bytes(raw[16:18], "little")
    sender = IPv4Address(raw[20:24]) if family == socket.AF_INET else IPv6Address(raw[24:40])
    return Answer(str(sender), kind, code, info)
