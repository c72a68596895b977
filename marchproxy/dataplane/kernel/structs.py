"""The running kernel's own structs: where their fields are, by its type information (BTF)."""

import ctypes as ct
import functools
from collections.abc import Iterator, Mapping

from marchproxy.dataplane.kernel.errors import NotSupported, refusal
from marchproxy.dataplane.kernel.libbpf import BtfEnumerator, BtfMember, BtfType, library

_STRUCT, _UNION, _ENUM, _TYPEDEF, _PROTOTYPE, _POINTER = 4, 5, 6, 8, 13, 2
_MODIFIERS = frozenset({_TYPEDEF, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag: what stands between a name and what it means."""


class KernelTypes:
    """Answers by name. Made once; the kernel does not change under us."""

    def __init__(self) -> None:
        """Raises `KernelError`: `NotSupported` for a kernel without BTF (CONFIG_DEBUG_INFO_BTF)."""
        lib = library()
        self._btf = lib.btf__load_vmlinux_btf()
        if not self._btf:
            code = ct.get_errno()
            if code == 2:
                raise NotSupported(
                    "this kernel does not tell its types (no /sys/kernel/btf/vmlinux)", errno=code
                )
            raise refusal(code, "read the kernel's types")

    def offset(self, struct: str, *path: str) -> int:
        """Bytes from the start of `struct` to a field; `path` goes through structs that hold others.

        `NotSupported` where there is no such field.
        """
        found = self._find(struct, _STRUCT)
        at = 0
        for name in path:
            field = next(self._fields(found, name), None)
            if field is None:
                raise NotSupported(f"struct {struct} of this kernel has no field {'.'.join(path)}")
            at += field[0]
            found = field[1]
        return at

    def enumerators(self, enum: str) -> Mapping[int, str]:
        """Names of the values of an enum; of several with the same value the last."""
        number = self._find(enum, _ENUM)
        address = library().btf__type_by_id(self._btf, number)
        count = BtfType.from_address(address).info & 0xFFFF
        values = (BtfEnumerator * count).from_address(address + ct.sizeof(BtfType))
        return {int(each.value): self._name(each.name_off) for each in values}

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a tracepoint has."""
        number = self._find(f"btf_trace_{name}", _TYPEDEF)
        while True:
            found = self._type(number)
            kind = found.info >> 24 & 0x1F
            if kind == _PROTOTYPE:
                # The first one is the tracepoint's own.
                return int(found.info & 0xFFFF) - 1
            if kind not in _MODIFIERS | {_POINTER}:
                raise NotSupported(f"this kernel has no tracepoint {name}")
            number = int(found.size)

    def _find(self, name: str, kind: int) -> int:
        number = int(library().btf__find_by_name_kind(self._btf, name.encode(), kind))
        if number < 0:
            raise NotSupported(f"this kernel does not know {name}")
        return number

    def _fields(self, number: int, wanted: str) -> Iterator[tuple[int, int]]:
        """Offset and type of a field by name, those of unnamed structs and unions inside included."""
        number = self._plain(number)
        address = library().btf__type_by_id(self._btf, number)
        found = BtfType.from_address(address)
        if found.info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return
        members = (BtfMember * (found.info & 0xFFFF)).from_address(address + ct.sizeof(BtfType))
        for member in members:
            bits = member.offset & 0xFFFFFF if found.info >> 31 else member.offset
            name = self._name(member.name_off)
            if name == wanted:
                yield bits // 8, int(member.type)
            elif not name:
                for inner, kind in self._fields(int(member.type), wanted):
                    yield bits // 8 + inner, kind

    def _plain(self, number: int) -> int:
        while (found := self._type(number)).info >> 24 & 0x1F in _MODIFIERS:
            number = int(found.size)
        return number

    def _type(self, number: int) -> BtfType:
        return BtfType.from_address(library().btf__type_by_id(self._btf, number))

    def _name(self, offset: int) -> str:
        name: bytes = library().btf__name_by_offset(self._btf, offset)
        return name.decode()


@functools.cache
def kernel_types() -> KernelTypes:
    """The one of this process. Raises as `KernelTypes`."""
    return KernelTypes()
