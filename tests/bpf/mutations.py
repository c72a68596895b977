"""Packets to begin with, and what may happen to them."""

import random
from collections.abc import Callable

from tests.bpf.bed import FROM_CLIENT
from tests.bpf.packets import Icmp, Other, Packet, Tcp, Udp, packet
from tests.bpf.talk import from_client

_LONGEST = 3400
"""The kernel's XDP test-run takes one page, its own headroom included."""
_INTERESTING = (0, 1, 4, 5, 6, 7, 17, 20, 28, 40, 41, 43, 44, 58, 60, 64, 127, 128, 224, 254, 255)


def originals() -> tuple[list[Packet], list[bytes]]:
    """First packets of conversations to establish, and frames that are right as they are."""
    v6 = ("fd01::2", "fd01::1")
    firsts = [
        from_client(Tcp(40000, 80)),
        from_client(Tcp(40000, 80), *v6),
        from_client(Udp(40000, 80, b"question")),
        from_client(Udp(40000, 80, b"question"), *v6),
    ]
    options = bytes.fromhex("020405b40402080a0000000100000000")
    others = [
        from_client(Tcp(40001, 80, options=options)),
        from_client(Tcp(40001, 80, options=options), *v6),
        from_client(Udp(40001, 80, bytes(64), 0)),
        from_client(Tcp(40002, 80, "PA", payload=b"nobody knows me")),
        from_client(Tcp(40002, 22, "PA", payload=b"SSH-2.0"), *v6),
        from_client(Udp(40002, 53, bytes(30))),
        from_client(Icmp(8, payload=bytes(56))),
        from_client(Icmp(128, payload=bytes(56)), *v6),
        from_client(Tcp(40000, 80, "A"), options=bytes.fromhex("94040000")),
        from_client(
            Udp(40000, 80, bytes(20)), *v6, extensions=((0, bytes(6)), (60, bytes(14)), (43, bytes(22)))
        ),
        packet("10.1.0.2", "10.2.0.2", Tcp(1, 2), link=FROM_CLIENT),
        packet("fd01::2", "fd02::2", Udp(1, 2, bytes(99)), link=FROM_CLIENT),
        from_client(Udp(40000, 80, bytes(100))).but(link__tags=(5,)),
        from_client(Tcp(40000, 80, "A"), *v6).but(link__tags=(0, 7)),
        from_client(Other(47, bytes(40))),
    ]
    frames = [each.build() for each in (*firsts, *others)]
    for first in firsts[2:]:
        frames += first.but(transport__payload=bytes(range(256)) * 8).fragments(1200)
    return firsts, frames


def mutate(frame: bytes, corpus: list[bytes], dice: random.Random) -> bytes:
    """One to four things happen to a frame; it keeps the length that the kernel runs."""
    raw = bytearray(frame)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
        dice.choice(_MUTATIONS)(raw, corpus, dice)
    if dice.random() < 0.95 and len(raw) >= 6:
        raw[:6] = frame[:6]
    return bytes(raw[:_LONGEST].ljust(14, b"\0"))


def _flip_bit(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(min(len(raw), 100))
    raw[at] ^= 1 << dice.randrange(8)


def _set_byte(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    raw[dice.randrange(min(len(raw), 100))] = dice.choice(_INTERESTING)


def _change_header(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    """One of the bytes that say how long something is, where it lies, or what follows."""
    offset = dice.choice(
        (12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 34, 38, 39, 46, 47, 54, 55, 58, 59, 66, 67)
    )
    if offset < len(raw):
        raw[offset] = dice.choice((dice.randrange(256), *_INTERESTING))


def _age(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    """Near the end of its hops."""
    at = 22 if raw[12:14] == b"\x08\x00" else 21
    if at < len(raw):
        raw[at] = dice.choice((0, 1, 2))


def _truncate(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    del raw[dice.randrange(14, len(raw) + 1) if len(raw) > 14 else 14 :]


def _lengthen(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    raw += dice.randbytes(dice.choice((1, 8, 100, 1400)))


def _insert(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    """Options, extension headers, tags: whatever these bytes are taken for."""
    at = dice.choice((12, 34, 54, min(len(raw), 74)))
    raw[at:at] = dice.choice(
        (
            b"\x81\x00\x00\x00",
            b"\x81\x00\x00\x05",
            b"\x88\xa8\x00\x01",
            bytes((dice.choice(_INTERESTING), dice.randrange(4))) + bytes(6),
            bytes((44, 0, 0, dice.choice((0, 1, 8, 9)), 0, 0, 0, 1)),
            dice.randbytes(4),
        )
    )


def _make_fragment(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    if len(raw) > 22 and raw[12:14] == b"\x08\x00":
        raw[20:22] = dice.choice((0x2000, 0x2001, 1, 100, 0x1FFF, 0x4000, 0x8000)).to_bytes(2)


def _make_chain(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    """Put extension headers in front of an IPv6 payload, mostly with right lengths."""
    if raw[12:14] != b"\x86\xdd" or len(raw) < 54:
        return
    chain = bytearray()
    kinds = [dice.choice((0, 43, 44, 60, 60)) for _ in range(dice.randint(1, 8))]
    for following in (*kinds[1:], raw[20]):
        size = dice.choice((0, 0, 1, 3)) if following else 0
        chain += bytes((following, size)) + bytes(6 + size * 8)
    raw[20] = kinds[0]
    raw[54:54] = chain
    if dice.random() < 0.8:
        raw[18:20] = ((int.from_bytes(raw[18:20]) + len(chain)) % 65536).to_bytes(2)


def _splice(raw: bytearray, corpus: list[bytes], dice: random.Random) -> None:
    """Go on as another packet does."""
    at = dice.choice((14, 26, 34, 54))
    raw[at:] = dice.choice(corpus)[at:]


def _change_address(raw: bytearray, _: list[bytes], dice: random.Random) -> None:
    """Put a strange address in place of the source or destination."""
    if raw[12:14] == b"\x08\x00" and len(raw) >= 34:
        strange = (
            "7f000001",
            "e0000001",
            "ffffffff",
            "00000000",
            "0a0200fe",
            "0a010001",
            "08080808",
            "0a0100ff",
        )
        at = dice.choice((26, 30))
        raw[at : at + 4] = bytes.fromhex(dice.choice(strange))
    elif raw[12:14] == b"\x86\xdd" and len(raw) >= 54:
        heads = ("ff02", "fe80", "0000", "fd02", "fd01", "2001", "00000000000000000000ffff")
        head, at = bytes.fromhex(dice.choice(heads)), dice.choice((22, 38))
        raw[at : at + 16] = head + raw[at + len(head) : at + 16]


_MUTATIONS: tuple[Callable[[bytearray, list[bytes], random.Random], None], ...] = (
    _flip_bit, _flip_bit, _flip_bit, _set_byte, _change_header, _change_header, _change_header,
    _truncate, _lengthen, _insert, _make_fragment, _make_chain, _splice, _change_address, _age,
)  # fmt: skip
