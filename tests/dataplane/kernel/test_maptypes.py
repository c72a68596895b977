"""maptypes: the kernel's numbers."""

import re
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.maptypes import MapType

HEADER = Path("/usr/include/linux/bpf.h")


@pytest.mark.requires(commands=["clang"])
def test_numbers_are_the_header_s() -> None:
    """The header may be older than our list, or newer; it counts from BPF_MAP_TYPE_UNSPEC = 0."""
    enum = re.search(r"enum bpf_map_type \{(.*?)\};", HEADER.read_text(), re.DOTALL)
    assert enum
    members = re.sub(r"/\*.*?\*/", "", enum.group(1), flags=re.DOTALL)
    names = re.findall(r"BPF_MAP_TYPE_(\w+?)(?:_DEPRECATED)?(?: = BPF_MAP_TYPE_\w+)?,", members)
    distinct = [name for name in dict.fromkeys(names) if not name.startswith("__")]
    numbered = {name: number for number, name in enumerate(distinct) if name in MapType.__members__}
    assert numbered == {kind.name: kind.value for kind in MapType if kind.name in numbered}
    assert len(numbered) >= MapType.RINGBUF
