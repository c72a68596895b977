"""What tables take, counted on small ones."""

import random
from ipaddress import ip_network
from itertools import pairwise

import pytest

from benchmarks.memory import Memory, Taken, apart, counted, flow_keys, markdown, measure
from marchproxy.dataplane.kernel import layouts

MEMINFO = "MemAvailable:  200 kB\nSUnreclaim: 30 kB\nVmallocUsed:\t10 kB\nPercpu: 2 kB\nHugePages_Total:  0\n"


def test_memory_of_the_kernel_is_what_tables_are_made_of() -> None:
    assert Memory.of(MEMINFO) == Memory(kernel=42 * 1024, available=200 * 1024)


def test_what_the_kernel_counts_for_a_map() -> None:
    assert counted("pos:\t0\nmap_type:\t1\nmemlock:\t4096\nfrozen:\t0\n") == 4096


def test_every_flow_has_two_keys_of_its_own() -> None:
    keys = list(flow_keys(3000))
    assert len(set(keys)) == 6000
    assert {len(key) for key in keys} == {layouts.FLOW_KEY.struct.size}


def test_prefixes_lie_apart() -> None:
    networks = [ip_network(text) for text in apart(400, random.Random(1))]
    four = sorted((int(n[0]), int(n[-1])) for n in networks if n.version == 4)
    six = sorted((int(n[0]), int(n[-1])) for n in networks if n.version == 6)
    assert (len(four), len(six)) == (300, 100)
    for some in (four, six):
        assert all(last < first for (_, last), (first, _) in pairwise(some))


@pytest.mark.requires("root", "bpf")
def test_small_tables_are_filled_and_counted() -> None:
    empty, full, opening, opened, blocked = measure(flows=500, prefixes=500)
    assert (empty.entries, full.entries, full.pieces, blocked.entries) == (0, 1000, 500, 500)
    assert full.memlock > empty.memlock
    # Its memory is there from the beginning.
    assert opened.memlock == opening.memlock
    assert blocked.memlock > 500 * 20


@pytest.mark.parametrize(("pieces", "each"), [(1000, "120"), (0, "")])
def test_the_row_of_a_table(pieces: int, each: str) -> None:
    taken = Taken("flows", 2000, 100_000, 120_000, 1_000_000, pieces)
    facts = {"date": "2026-01-01", "kernel": "6.18", "processor": "2 x EPYC"}
    assert taken.cells() == ("flows", "2,000", "0.1 MB", "0.1 MB", "1.0 MB", each)
    assert (
        markdown([taken], facts).splitlines()[2] == f"| flows | 2,000 | 0.1 MB | 0.1 MB | 1.0 MB | {each} |"
    )
