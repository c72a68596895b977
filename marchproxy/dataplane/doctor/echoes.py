"""Echo requests of chosen sizes that nobody may fragment, and what comes back."""

import os
import socket
import time
from collections.abc import Iterable
from struct import Struct

from marchproxy.dataplane.doctor.sizes import Heard, Told
from marchproxy.dataplane.health.icmp import echo_request, is_reply, without_ip
from marchproxy.model.address import IPAddress

TRIES = 3
"""Before a size counts as unanswered: single packets are lost without a reason, too."""
PATIENCE = 0.7
"""Seconds for the answers of one try."""
_HEADERS = {4: 28, 6: 48}
"""Bytes of IP and ICMP before the payload."""
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_PROBE = 3
"""IP_PMTUDISC_PROBE of ip(7): no fragments, whatever has been learned of the path before."""
_TOO_BIG = {4: (3, 4), 6: (2, 0)}
"""Type and code (RFC 792 with RFC 1191, RFC 4443 section 3.2)."""
_MTU = {4: Struct("!6xH"), 6: Struct("!4xI")}
_MARK = 16
"""Bytes at the beginning of the payload that no other ping has."""


class Echoes:
    """To one address."""

    def __init__(self, address: IPAddress) -> None:
        """Raises `PermissionError` without CAP_NET_RAW."""
        self._address = address
        self._version = address.version
        family, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP)
            if address.version == 4
            else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        )
        self._mark = os.urandom(_MARK)
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(*_MTU_DISCOVER[self._version], _PROBE)

    def ask(self, sizes: Iterable[int]) -> Heard:
        """Which of these IP lengths are answered, and who says that some are too large."""
        waiting, told = {max(size, _HEADERS[self._version] + _MARK) for size in sizes}, None
        answered: set[int] = set()
        for _ in range(TRIES):
            for size in sorted(waiting):
                self._send(size)
            deadline = time.monotonic() + PATIENCE
            while waiting and (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    packet, sender = self._socket.recvfrom(65536)
                except TimeoutError:
                    break
                message = without_ip(packet) if self._version == 4 else packet
                size = self._size(message, sender[0])
                told = told or self._told(message, sender[0])
                waiting.discard(size)
                answered.update({size} if size else ())
            if not waiting or told:
                break
        return Heard(frozenset(answered), told)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _payload(self, size: int) -> bytes:
        return self._mark + bytes(size - _HEADERS[self._version] - _MARK)

    def _send(self, size: int) -> None:
        message = echo_request(self._version, 0x4D50, self._payload(size))
        try:
            self._socket.sendto(message, (str(self._address), 0))
        except OSError:
            # Larger than the own device takes, or the neighbour is not there: not answered.
            return

    def _size(self, message: bytes, sender: str) -> int:
        """Of the request that this answers; 0: of none."""
        size = len(message) - 8 + _HEADERS[self._version]
        if sender != str(self._address) or size < _HEADERS[self._version] + _MARK:
            return 0
        return size if is_reply(self._version, message, self._payload(size)) else 0

    def _told(self, message: bytes, sender: str) -> Told | None:
        """Somebody on the way says what is the most that the next link takes."""
        quoted = 8 + (16 if self._version == 4 else 24)
        packed = self._address.packed
        if tuple(message[:2]) != _TOO_BIG[self._version] or message[quoted : quoted + len(packed)] != packed:
            return None
        (mtu,) = _MTU[self._version].unpack_from(message)
        return Told(int(mtu), sender)
