"""Connection IDs that lead to the right process, and secrets that all processes of a port share.

A connection outlives its client's address (RFC 9000 section 9), so processes that share a port by the hash of
addresses and ports (SO_REUSEPORT) would lose it to one another. The first byte of every connection ID that we
give out says which process it belongs to; of the ID that a client makes up for its first packets it is
anything, and these stay together as well. A program of four instructions at the sockets reads it; it is of
the old kind (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5), which needs no privilege and holds without our BPF.
"""

import ctypes
import hmac
import os
import secrets
import socket
import struct

CONNECTION_ID = 8
"""Bytes of ours."""
RESET_TOKEN = 16
_SO_ATTACH_REUSEPORT_CBPF = 51
_INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter, linux/filter.h: code, jumps if true and if not, operand."""
_LOAD_BYTE, _JUMP_IF_SET, _MODULO, _RETURN = 0x30, 0x45, 0x94, 0x16
_LONG_HEADER = 0x80
_SHORT_ID, _LONG_ID = 1, 6
"""Where the destination's connection ID begins (RFC 8999 section 5), of long headers behind its length."""


class Steering:
    """What one of `count` processes that share ports gives out; `index` says which one it is."""

    def __init__(self, secret: bytes | None = None, index: int = 0, count: int = 1) -> None:
        """`secret`: 32 bytes that the processes, and their successors, have in common."""
        self._secret = secret or secrets.token_bytes(32)
        self._index = index
        self.count = count
        """Processes."""

    def connection_id(self) -> bytes:
        """A new one, which nobody can guess."""
        random = os.urandom(CONNECTION_ID)
        first = random[0] % (256 // self.count) * self.count + self._index
        return bytes([first]) + random[1:]

    def reset_token(self, connection_id: bytes) -> bytes:
        """What proves that whoever gave this ID out knows nothing of it any more (RFC 9000 section 10.3)."""
        return hmac.digest(self._secret, b"stateless reset" + connection_id, "sha256")[:RESET_TOKEN]


def steer(sock: socket.socket, count: int) -> None:
    """Have datagrams to any of the `count` sockets that share an address and port go to the one that they are
    for; they are numbered in the order in which they were bound. Raises `OSError`.
    """
    program = b"".join(
        _INSTRUCTION.pack(*each)
        for each in (
            (_LOAD_BYTE, 0, 0, 0),
            (_JUMP_IF_SET, 0, 2, _LONG_HEADER),
            (_LOAD_BYTE, 0, 0, _LONG_ID),
            (0x05, 0, 0, 1),
            (_LOAD_BYTE, 0, 0, _SHORT_ID),
            (_MODULO, 0, 0, count),
            (_RETURN, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are.
    described = struct.pack("HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)
