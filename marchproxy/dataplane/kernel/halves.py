"""Entries of flow tables, as far unpacked as walks over them need. A *half* is one direction of a flow."""

from struct import Struct
from typing import Any

from marchproxy.dataplane.kernel import layouts

type Half = tuple[Any, ...]
"""`HALF`, unpacked. Without names, which would cost as much again."""

HALF = layouts.FLOW.pick(
    *("source", "destination", "source_port", "destination_port", "last_seen", "packets"),
    *("bytes", "state", "flags", "id", "started", "mapping"),
)
SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT, LAST_SEEN, PACKETS = range(6)
BYTES, STATE, FLAGS, ID, STARTED, MAPPING = range(6, 12)
RAW_KEY = Struct(f"{layouts.FLOW_KEY.size}s")

KEY_SOURCE, KEY_DESTINATION = slice(16), slice(16, 32)
KEY_SOURCE_PORT, KEY_DESTINATION_PORT = slice(32, 34), slice(34, 36)
KEY_PROTOCOL = 36
"""Where a packed key has what a packet arrives with."""


def client(raw_key: bytes, half: Half) -> bytes:
    """Who opened the flow of either half."""
    found: bytes = half[DESTINATION] if half[FLAGS] & layouts.FLAG_REPLY else raw_key[KEY_SOURCE]
    return found


def asked(raw_key: bytes, half: Half) -> bytes:
    """What address the client asked for."""
    found: bytes = half[SOURCE] if half[FLAGS] & layouts.FLAG_REPLY else raw_key[KEY_DESTINATION]
    return found


def backend(raw_key: bytes, half: Half) -> tuple[bytes, bytes]:
    """Address and port that the flow goes to."""
    if half[FLAGS] & layouts.FLAG_REPLY:
        return raw_key[KEY_SOURCE], raw_key[KEY_SOURCE_PORT]
    return half[DESTINATION], half[DESTINATION_PORT]


def other_key(raw_key: bytes, half: Half) -> bytes:
    """The key of the other half: the rewritten tuple, reversed."""
    return layouts.FLOW_KEY.struct.pack(
        *(half[DESTINATION], half[SOURCE], half[DESTINATION_PORT], half[SOURCE_PORT], raw_key[KEY_PROTOCOL])
    )
