"""Which backend: the kernel's choice, and who comes next."""

import ctypes
import itertools
import re
import subprocess
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy import bpf
from marchproxy.dataplane.proxy.balance import candidates, flow_hash
from tests.dataplane.plans import backend, pool

SOURCE = Path(bpf.__file__).parent
PORTS = st.integers(1, 65535)
ADDRESSES = st.ip_addresses()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_every_backend_comes_once_and_the_table_decides_who_is_first(hashed: int, count: int) -> None:
    choice = pool(*(backend(8000 + number) for number in range(count)))
    order = list(candidates(choice, hashed))
    assert sorted(item.port for item in order) == [8000 + number for number in range(count)]
    assert order[0] == choice.backends[choice.table[hashed % len(choice.table)]]


def test_the_flows_of_a_dead_backend_spread_over_the_others() -> None:
    choice = pool(*(backend(8000 + number) for number in range(5)))
    orders = [list(candidates(choice, hashed)) for hashed in range(len(choice.table))]
    first = Counter(order[0].port for order in orders)
    assert max(first.values()) - min(first.values()) <= 1
    seconds = Counter(order[1].port for order in orders if order[0].port == 8000)
    assert len(seconds) == 4
    assert max(seconds.values()) < 2 * min(seconds.values())


@pytest.fixture(scope="module")
def kernel_hash(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The hash of bpf/hash.h, compiled for this machine: its text, with the struct it reads."""
    text = (SOURCE / "hash.h").read_text()
    functions = text[text.index("static __always_inline __u32 hash_mix") : text.rindex("#endif")]
    structs = re.findall(
        r"^struct mp_(?:address|flow_key) \{.*?^\};", (SOURCE / "marchproxy.h").read_text(), re.S | re.M
    )
    program = "\n".join(
        [
            "#include <linux/types.h>",
            "#define __always_inline inline",
            *structs,
            functions,
            "__u32 hash_of(const struct mp_flow_key *key) { return hash_flow(key); }",
        ]
    )
    folder = tmp_path_factory.mktemp("hash")
    (folder / "hash.c").write_text(program)
    library = folder / "hash.so"
    subprocess.run(["clang", "-shared", "-fPIC", "-O1", "-o", library, folder / "hash.c"], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.hash_of.restype = ctypes.c_uint32
    return loaded


@pytest.mark.requires(commands=["clang"])
@given(
    pair=st.one_of(st.tuples(*[st.ip_addresses(v=4)] * 2), st.tuples(*[st.ip_addresses(v=6)] * 2)),
    ports=st.tuples(PORTS, PORTS),
    protocol=st.sampled_from([6, 17]),
)
def test_both_tiers_hash_a_flow_alike(
    kernel_hash: ctypes.CDLL, pair: tuple[object, object], ports: tuple[int, int], protocol: int
) -> None:
    source, destination = ip_address(str(pair[0])), ip_address(str(pair[1]))
    packed = [
        (b"\0" * 10 + b"\xff\xff" + item.packed) if item.version == 4 else item.packed
        for item in (source, destination)
    ]
    key = b"".join([*packed, *(port.to_bytes(2) for port in ports), bytes([protocol, 0, 0, 0])])
    assert flow_hash(source, ports[0], destination, ports[1], protocol) == kernel_hash.hash_of(key)


def test_neighbouring_flows_spread_evenly() -> None:
    client, server = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    buckets = Counter(
        flow_hash(client, port, server, 80, 6) % 5 for port in itertools.islice(range(32768, 61000), 5000)
    )
    assert all(900 <= count <= 1100 for count in buckets.values())
