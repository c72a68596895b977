"""The functions in a compiled object (elf(5); 64 bits, little-endian)."""

import struct
from collections.abc import Iterator
from pathlib import Path

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _PROGBITS, _FUNCTION = 2, 1, 2


def functions(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and instructions of each."""
    data = path.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 0x28)
    (count,) = struct.unpack_from("<H", data, 0x3C)
    sections = [_SECTION.unpack_from(data, start + _SECTION.size * number) for number in range(count)]
    for table in sections:
        if table[1] != _SYMTAB:
            continue
        names = data[sections[table[6]][4] :]
        for place in range(table[4], table[4] + table[5], _SYMBOL.size):
            name, info, _, section, value, size = _SYMBOL.unpack_from(data, place)
            if info & 0xF == _FUNCTION and section < count and sections[section][1] == _PROGBITS:
                code = sections[section][4] + value
                yield names[name : names.index(b"\0", name)].decode(), data[code : code + size]
