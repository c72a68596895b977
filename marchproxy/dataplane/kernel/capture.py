"""Capturing packets of the pipeline: `bpf/capture.h` takes them, this says which, and reads them."""

import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

from marchproxy.dataplane.capture.packet import STALE, CapturedPacket, CaptureKind
from marchproxy.dataplane.capture.wish import Wish, named
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.perfbuf import PerfBuffer
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.model.address import Prefix
from marchproxy.model.errors import Conflict, MarchproxyError, NotFound
from marchproxy.model.reason import Reason, Tier

type InThread = Callable[..., Awaitable[Any]]

_KEY = layouts.U32.pack(0)
_KINDS = {
    layouts.CAPTURE_CAME: CaptureKind.CAME,
    layouts.CAPTURE_LEFT: CaptureKind.LEFT,
    layouts.CAPTURE_DENIED: CaptureKind.DENIED,
    layouts.CAPTURE_AUDITED: CaptureKind.AUDITED,
}
_REFUSALS = 1 << layouts.CAPTURE_DENIED | 1 << layouts.CAPTURE_AUDITED
_ALL = _REFUSALS | 1 << layouts.CAPTURE_CAME
_PROTOCOLS = {
    "tcp": (layouts.TCP, layouts.TCP),
    "udp": (layouts.UDP, layouts.UDP),
    "icmp": (layouts.ICMP, layouts.ICMPV6),
    "": (0, 0),
}


class Capture:
    """One capture at a time, since there is one filter. For the tier's thread."""

    def __init__(self, maps: Mapping[str, Map], settings: Settings, names: MappingNames) -> None:
        self._maps = maps
        self._settings = settings
        self._names = names
        self._buffer: PerfBuffer | None = None
        self._filter: dict[str, int | bytes] = {}
        self._raw: list[bytes] = []
        self._turn = 0
        self._read = 0.0
        self._offset = 0
        self.missed = 0
        """Packets of this capture, so far."""

    @property
    def running(self) -> bool:
        """Whether somebody captures, and reads it."""
        return self._buffer is not None and time.monotonic() - self._read < STALE

    def begin(self, wish: Wish) -> int:
        """Capture from now on; returns the capture's number.

        Raises `Conflict` beside another one, `NotFound`, or a `KernelError`."""
        if self.running:
            raise Conflict("somebody else captures", hint="there is one capture at a time; try again later")
        self.end()
        mappings = self._numbers(wish.mapping) if wish.mapping else []
        self._set_prefixes(wish)
        self._maps["capture_spent"].set(_KEY, bytes(layouts.CAPTURE_SPENT.size))
        self._filter = _filter(wish, mappings)
        self._raw, self.missed, self._read = [], 0, time.monotonic()
        self._offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._buffer = PerfBuffer(self._maps["captured"], self._raw.append)
        try:
            self._go_on()
            self._settings.capture(True)
        except MarchproxyError:
            self.end()
            raise
        self._turn += 1
        return self._turn

    def read(self, turn: int) -> Sequence[CapturedPacket]:
        """What there is of capture `turn`, in order of time; the programs go on for `STALE` seconds more.

        Raises `Conflict` where another one has taken its place.
        """
        if self._buffer is None or turn != self._turn:
            raise Conflict("the capture has ended: nobody read it")
        self._go_on()
        self._buffer.consume()
        spent = layouts.CAPTURE_SPENT.struct.unpack(self._maps["capture_spent"].get(_KEY) or b"")
        # Of what found no room the program counts every one, and the buffer tells of some a second time.
        self.missed = spent[2]
        raw, self._raw[:] = list(self._raw), []
        interfaces: dict[int, str] = {}
        return sorted((self._packet(each, interfaces) for each in raw), key=lambda packet: packet.time)

    def leave(self, turn: int) -> None:
        """Stop capture `turn`, unless it is another's turn already."""
        if turn == self._turn:
            self.end()

    def look_after(self) -> None:
        """End what nobody reads any more; to be called about four times a second."""
        if self._buffer is not None and not self.running:
            self.end()

    def end(self) -> None:
        """Stop; nothing of it is left. May be repeated."""
        self._settings.capture(False)
        self._maps["capture_filter"].set(_KEY, bytes(layouts.CAPTURE_FILTER.size))
        prefixes = self._maps["capture_prefixes"]
        prefixes.delete_many(list(prefixes.keys()))
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def _go_on(self) -> None:
        self._read = time.monotonic()
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(STALE * 1e9)
        self._maps["capture_filter"].set(
            _KEY, layouts.CAPTURE_FILTER.struct.pack(until, *self._filter.values())
        )

    def _numbers(self, text: str) -> list[int]:
        found = [self._names.number(name) for name in named(self._names.all(), text)]
        if not found:
            raise NotFound("mapping", text, hint="see: marchproxy mapping list")
        if len(found) > layouts.CAPTURE_MAPPINGS:
            raise Conflict(f"{len(found)} clusters have a mapping {text!r}", hint="say cluster/mapping")
        return found

    def _set_prefixes(self, wish: Wish) -> None:
        wanted = [(prefix, layouts.CAPTURE_SERVICE) for prefix in wish.services]
        wanted += [(wish.source, layouts.CAPTURE_SOURCE)] if wish.source else []
        wanted += [(wish.destination, layouts.CAPTURE_DESTINATION)] if wish.destination else []
        entries = [(_prefix_key(prefix), layouts.U32.pack(bits)) for prefix, bits in merged(wanted).items()]
        self._maps["capture_prefixes"].update_many(entries)

    def _packet(self, raw: bytes, interfaces: dict[int, str]) -> CapturedPacket:
        record = layouts.read_capture(raw)
        if record.ifindex not in interfaces:
            interfaces[record.ifindex] = _interface(record.ifindex)
        begin = layouts.CAPTURE.size
        return CapturedPacket(
            time=record.time + self._offset,
            kind=_KINDS[record.kind],
            interface=interfaces[record.ifindex],
            tier=Tier(record.tier),
            reason=Reason(record.reason),
            mapping=self._names.name(record.mapping),
            flow=record.id,
            reply=bool(record.reply),
            resolved=not record.unresolved,
            length=record.length,
            segments=record.segments,
            data=raw[begin : begin + record.taken],
        )


class CaptureFeed:
    """See `Feed`: one capture, for whoever is not in the tier's thread."""

    def __init__(self, capture: Capture, turn: int, in_thread: InThread) -> None:
        self._capture = capture
        self._turn = turn
        self._in_thread = in_thread

    async def read(self) -> Sequence[CapturedPacket]:
        """See `Feed.read`. Raises `MarchproxyError`."""
        packets: Sequence[CapturedPacket] = await self._in_thread(self._capture.read, self._turn)
        return packets

    @property
    def missed(self) -> int:
        """See `Feed.missed`."""
        return self._capture.missed

    async def close(self) -> None:
        """See `Feed.close`."""
        await self._in_thread(self._capture.leave, self._turn)


def merged(wanted: Sequence[tuple[Prefix, int]]) -> dict[Prefix, int]:
    """Each prefix with its own bits and those of all that contain it: the longest match then knows all."""
    found: dict[Prefix, int] = {}
    for prefix, bits in wanted:
        found[prefix] = found.get(prefix, 0) | bits
    lengths = sorted({(each.version, each.prefixlen) for each in found})
    for prefix in sorted(found, key=lambda each: each.prefixlen):
        for version, length in lengths:
            if version == prefix.version and length < prefix.prefixlen:
                found[prefix] |= found.get(prefix.supernet(new_prefix=length), 0)
    return found


def _filter(wish: Wish, mappings: Sequence[int]) -> dict[str, int | bytes]:
    """The fields of `mp_capture_filter` behind `until`, in order."""
    bits = (
        (wish.source, layouts.CAPTURE_SOURCE),
        (wish.destination, layouts.CAPTURE_DESTINATION),
        (wish.service, layouts.CAPTURE_SERVICE),
        (wish.mapping, layouts.CAPTURE_MAPPING),
    )
    protocol, protocol_v6 = _PROTOCOLS[wish.protocol]
    return {
        "reasons": 1 << wish.reason if wish.reason else (1 << 64) - 1,
        "kinds": _REFUSALS if wish.denied else _ALL,
        "wanted": sum(bit for asked, bit in bits if asked),
        "rate": wish.rate,
        "snap": wish.snap,
        "port": wish.port.to_bytes(2),
        "protocol": protocol,
        "protocol_v6": protocol_v6,
        "mappings": b"".join(map(layouts.U32.pack, mappings)).ljust(4 * layouts.CAPTURE_MAPPINGS, b"\0"),
    }


def _prefix_key(prefix: Prefix) -> bytes:
    mapped = 96 if isinstance(prefix, IPv4Network) else 0
    return layouts.U32.pack(mapped + prefix.prefixlen) + layouts.pack_address(prefix.network_address)


def _interface(ifindex: int) -> str:
    """Its name; empty where it is gone."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return ""
