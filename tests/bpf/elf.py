"""The functions in a compiled object (elf(5); 64 bits, little-endian), and which of them each one names."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_SYMTAB, _RELOCATIONS, _PROGBITS, _FUNCTION = 2, 9, 1, 2
_CALL, _OF_A_FUNCTION_HERE = 0x85, 0x10
"""BPF_JMP | BPF_CALL, and in its source register BPF_PSEUDO_CALL."""


@dataclass(frozen=True, slots=True)
class Function:
    """One of them."""

    name: str
    code: bytes
    section: int
    start: int
    """Bytes from the beginning of its section."""


class Object:
    """What is in one."""

    def __init__(self, path: Path) -> None:
        self._data = data = path.read_bytes()
        (start,) = struct.unpack_from("<Q", data, 0x28)
        (count,) = struct.unpack_from("<H", data, 0x3C)
        self._sections = [
            _SECTION.unpack_from(data, start + _SECTION.size * number) for number in range(count)
        ]
        (table,) = (each for each in self._sections if each[1] == _SYMTAB)
        self._symbols = list(_SYMBOL.iter_unpack(data[table[4] : table[4] + table[5]]))
        names = data[self._sections[table[6]][4] :]
        self.functions = [
            Function(
                names[name : names.index(b"\0", name)].decode(),
                self._code(section, value, size),
                section,
                value,
            )
            for name, info, _, section, value, size in self._symbols
            if info & 0xF == _FUNCTION and section < count and self._sections[section][1] == _PROGBITS
        ]

    def _code(self, section: int, value: int, size: int) -> bytes:
        start = self._sections[section][4] + value
        return self._data[start : start + size]

    def named_by(self, function: Function) -> Iterator[Function]:
        """What it calls, and what it has called: the callbacks of bpf_loop."""
        at = {(each.section, each.start): each for each in self.functions}
        related = self._related(function)
        for place in range(0, len(function.code), 8):
            operation, registers, _, immediate = struct.unpack_from("<BBhi", function.code, place)
            is_call = operation == _CALL and registers & 0xF0 == _OF_A_FUNCTION_HERE
            if place in related:
                _, info, _, section, value, _ = self._symbols[related[place]]
                # A function that is static is named by its section, and a place in it.
                if info & 0xF != _FUNCTION:
                    value += 8 * (immediate + 1) if is_call else immediate
                found = at.get((section, value))
            else:
                target = function.start + place + 8 * (immediate + 1)
                found = at[function.section, target] if is_call else None
            if found:
                yield found

    def _related(self, function: Function) -> dict[int, int]:
        """Symbols that its instructions are related to, by where in it these are."""
        found = {}
        for each in self._sections:
            if each[1] == _RELOCATIONS and each[7] == function.section:
                for where, info in _RELOCATION.iter_unpack(self._data[each[4] : each[4] + each[5]]):
                    found[where - function.start] = info >> 32
        return found


def functions(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and instructions of each."""
    for each in Object(path).functions:
        yield each.name, each.code
