"""The type information in a compiled BPF object: structs and enums, as the compiler laid them out.

Kernel documentation: Documentation/bpf/btf.rst. Little-endian objects only, which is what `-target bpf` makes
on the machines that the tests run on.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

_TRAILERS = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes behind a type: integer, array, variable, declaration tag."""
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes for each member: struct, union, enum, function prototype, section, 64-bit enum."""
_STRUCT, _ENUM = 4, 6


@dataclass(frozen=True, slots=True)
class Struct:
    """Size, and the members' offsets in bytes by their names, in order."""

    size: int
    offsets: dict[str, int]


@dataclass(frozen=True, slots=True)
class Btf:
    """What an object says about its types."""

    structs: dict[str, Struct] = field(default_factory=dict)
    enumerators: dict[str, int] = field(default_factory=dict)


def read_btf(path: Path) -> Btf:
    """The structs and enumerators of an object file."""
    raw = _section(path.read_bytes(), b".BTF")
    header_length, types_at, types_length, names_at, _ = struct.unpack_from("<IIIII", raw, 4)
    names = raw[header_length + names_at :]
    found = Btf()
    at, end = header_length + types_at, header_length + types_at + types_length
    while at < end:
        name, info, size = struct.unpack_from("<III", raw, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        at += 12
        entries = [
            struct.unpack_from("<II", raw, at + number * _PER_MEMBER.get(kind, 0))
            for number in range(members)
        ]
        if kind == _STRUCT:
            bits = [struct.unpack_from("<I", raw, at + number * 12 + 8)[0] for number in range(members)]
            offsets = {_text(names, entry[0]): bit // 8 for entry, bit in zip(entries, bits, strict=True)}
            found.structs[_text(names, name)] = Struct(size, offsets)
        elif kind == _ENUM:
            found.enumerators.update({_text(names, entry[0]): entry[1] for entry in entries})
        at += _TRAILERS.get(kind, 0) + members * _PER_MEMBER.get(kind, 0)
    return found


def _section(elf: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit ELF file by its name."""
    (headers_at,) = struct.unpack_from("<Q", elf, 40)
    size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, headers_at + number * size) for number in range(count)]
    names_at = headers[names_index][4]
    for name, _, _, _, offset, length in headers:
        if elf[names_at + name :].startswith(wanted + b"\0"):
            return elf[offset : offset + length]
    raise AssertionError(f"no section {wanted!r}")


def _text(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()
