"""Constants of a BPF object, `const volatile` in C, given their values before the object is loaded.

The verifier knows these values: it removes the branches they rule out, so a switch costs nothing per packet.
Where a constant lies in the section `.rodata`, and how long it is, comes from the object's BTF.
"""

import ctypes as ct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from marchproxy.dataplane.kernel.errors import ObjectInvalid
from marchproxy.dataplane.kernel.libbpf import SIZE, BtfType, BtfVariable, library

SECTION = ".rodata"
_KIND_DATASEC = 15


@dataclass(frozen=True, slots=True)
class _Constant:
    offset: int
    size: int


def write_constants(handle: int, section: int | None, values: Mapping[str, bytes]) -> None:
    """Set constants of an opened and not yet loaded object.

    `handle` is its `struct bpf_object *`, `section` the `struct bpf_map *` of its .rodata. ObjectInvalid for
    a name it does not have, or a value of another size; nothing is written then.
    """
    if not values:
        return
    known = dict(_constants(handle)) if section else {}
    for name, value in values.items():
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ObjectInvalid(f"the object has no constant {name!r}", hint=f"it has: {listed}")
        if len(value) != known[name].size:
            raise ObjectInvalid(f"constant {name!r} has {known[name].size} bytes, and was given {len(value)}")
    start = int(library().bpf_map__initial_value(section, ct.byref(SIZE())))
    for name, value in values.items():
        ct.memmove(start + known[name].offset, value, len(value))


def _constants(handle: int) -> Iterator[tuple[str, _Constant]]:
    """Name and place of each constant; none where the object was compiled without -g, and so without BTF."""
    lib = library()
    btf = lib.bpf_object__btf(handle)
    found = lib.btf__find_by_name_kind(btf, SECTION.encode(), _KIND_DATASEC) if btf else -1
    if found < 0:
        return
    address = lib.btf__type_by_id(btf, found)
    members = BtfType.from_address(address).info & 0xFFFF
    for variable in (BtfVariable * members).from_address(address + ct.sizeof(BtfType)):
        named = BtfType.from_address(lib.btf__type_by_id(btf, variable.type))
        name = lib.btf__name_by_offset(btf, named.name_off).decode()
        yield name, _Constant(int(variable.offset), int(variable.size))
