"""Which backend: the kernel's choice, and who comes next."""

import ctypes
import itertools
import re
import subprocess
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.proxy import balance as module
from marchproxy.dataplane.proxy.balance import Balancer, flow_hash, source_hash
from marchproxy.model.entities import Balance
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.maglev import build_table, turns_table
from marchproxy.policy.plan import ANYONE, Pool, Rule
from tests.dataplane.plans import backend

SOURCE = Path(bpf.__file__).parent
PORTS = st.integers(1, 65535)
ADDRESSES = st.ip_addresses()


VIP = ip_address("192.0.2.1")


def asked(number: int = 0, version: int = 4) -> tuple[Query, int]:
    """A new flow of the number-th client, and its source port."""
    client, vip = ("10.0.0.0", "192.0.2.1") if version == 4 else ("fd00::", "fd01::1")
    return Query(ip_address(client) + number % 50, ip_address(vip), 80, Transport.TCP), 1024 + number


def ruled(*weights: int, balance: Balance = Balance.MAGLEV, idle: tuple[int, ...] = ()) -> Rule:
    """A rule over backends of these weights, on ports 8000 and up; those at `idle` take no new flows."""
    backends = tuple(replace(backend(8000 + index), weight=weight) for index, weight in enumerate(weights))
    taking = [index for index in range(len(backends)) if index not in idle]
    build = turns_table if balance is Balance.ROUND_ROBIN else build_table
    table = build([(bytes([index]), backends[index].weight) for index in taking])
    pool = Pool(backends, tuple(taking[place] for place in table))
    return Rule("m", 100, (ANYONE,), (), pool, Reason.FORWARDED, balance=balance)


def order(balancer: Balancer, rule: Rule, number: int = 0, version: int = 4) -> list[int]:
    """Which backends a flow tries, by their index."""
    assert rule.pool is not None
    return [item.port - 8000 for item in balancer.candidates(rule, rule.pool, *asked(number, version))]


EACH = pytest.mark.parametrize("balance", Balance)


@EACH
@given(number=st.integers(0, 10_000), weights=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_every_backend_comes_once(balance: Balance, number: int, weights: list[int]) -> None:
    found = order(Balancer(), ruled(*weights, balance=balance), number)
    assert sorted(found) == list(range(len(weights)))


@EACH
def test_backends_that_take_no_new_flows_are_not_tried(balance: Balance) -> None:
    balancer, rule = Balancer(), ruled(1, 1, 1, 1, balance=balance, idle=(0, 2))
    assert {tuple(sorted(order(balancer, rule, number))) for number in range(50)} == {(1, 3)}
    assert order(balancer, ruled(1, 1, balance=balance, idle=(0, 1))) == []


def test_the_table_decides_who_is_first() -> None:
    rule = ruled(1, 1, 1)
    assert rule.pool is not None
    for number in range(50):
        query, port = asked(number)
        hashed = flow_hash(query.source, port, query.destination, query.port, 6)
        assert order(Balancer(), rule, number)[0] == rule.pool.table[hashed % len(rule.pool.table)]


def test_the_flows_of_a_dead_backend_spread_over_the_others() -> None:
    orders = [order(Balancer(), ruled(1, 1, 1, 1, 1), number) for number in range(5000)]
    first = Counter(tried[0] for tried in orders)
    assert max(first.values()) < 1.2 * min(first.values())
    seconds = Counter(tried[1] for tried in orders if tried[0] == 0)
    assert len(seconds) == 4
    assert max(seconds.values()) < 1.4 * min(seconds.values())


def test_one_client_stays_with_one_backend_even_when_that_fails() -> None:
    rule = ruled(1, 1, 1, 1, balance=Balance.SOURCE)
    by_client: dict[int, set[tuple[int, ...]]] = {}
    for number in range(500):
        by_client.setdefault(number % 50, set()).add(tuple(order(Balancer(), rule, number)))
    assert all(len(orders) == 1 for orders in by_client.values())
    assert {next(iter(orders))[0] for orders in by_client.values()} == {0, 1, 2, 3}


def test_turns_go_round_by_weight_and_for_each_family_by_itself() -> None:
    balancer, rule = Balancer(), ruled(2, 1, balance=Balance.ROUND_ROBIN)
    fours, sixes = [], []
    for number in range(6):
        fours.append(order(balancer, rule, number)[0])
        sixes.append(order(balancer, rule, number, 6)[0])
    assert fours == sixes == [*rule.pool.table, *rule.pool.table] if rule.pool else False
    assert Counter(fours) == {0: 4, 1: 2}


def test_the_busier_of_two_draws_is_not_taken() -> None:
    balancer, rule = Balancer(), ruled(1, 1, balance=Balance.LEAST_CONNECTIONS)
    assert rule.pool is not None
    before = [order(balancer, rule, number)[0] for number in range(400)]
    for _ in range(5):
        balancer.count(rule.pool.backends[0], 1)
    after = [order(balancer, rule, number)[0] for number in range(400)]
    moved = sum(new == 1 for old, new in zip(before, after, strict=True) if old == 0)
    assert 0.35 < moved / before.count(0) < 0.65, "half of them have drawn the other one too"
    assert all(new == 1 for old, new in zip(before, after, strict=True) if old == 1)


@EACH
@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 2, 1)], ids=["equal", "3:2:1"])
def test_a_thousand_connections_spread_by_weight(balance: Balance, weights: tuple[int, ...]) -> None:
    """All of them stay. Clients are many, as SOURCE needs."""
    balancer, rule, shares = Balancer(), ruled(*weights, balance=balance), Counter[int]()
    assert rule.pool is not None
    for number in range(1000):
        query = Query(ip_address("10.0.0.0") + number * 7, VIP, 80, Transport.TCP)
        chosen = next(balancer.candidates(rule, rule.pool, query, 1024 + number))
        balancer.count(chosen, 1)
        shares[chosen.port - 8000] += 1
    within = {Balance.ROUND_ROBIN: 0.01, Balance.LEAST_CONNECTIONS: 0.02}.get(balance, 0.12)
    for index, weight in enumerate(weights):
        assert shares[index] == pytest.approx(1000 * weight / sum(weights), rel=within)


def test_what_has_ended_is_no_longer_counted() -> None:
    balancer, rule = Balancer(), ruled(1, 1, balance=Balance.LEAST_CONNECTIONS)
    assert rule.pool is not None
    before = [order(balancer, rule, number)[0] for number in range(100)]
    for change in (1, 1, -1, -1):
        balancer.count(rule.pool.backends[0], change)
    assert [order(balancer, rule, number)[0] for number in range(100)] == before


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
            "__u32 hash_of_source(const struct mp_flow_key *key) { return hash_source(&key->source); }",
        ]
    )
    folder = tmp_path_factory.mktemp("hash")
    (folder / "hash.c").write_text(program)
    library = folder / "hash.so"
    subprocess.run(["clang", "-shared", "-fPIC", "-O1", "-o", library, folder / "hash.c"], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.hash_of.restype = loaded.hash_of_source.restype = ctypes.c_uint32
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
    assert source_hash(source) == kernel_hash.hash_of_source(key)


def test_the_second_draw_is_the_kernels() -> None:
    assert layouts.BALANCES[Balance.LEAST_CONNECTIONS] == module._SECOND_DRAW


def test_neighbouring_flows_spread_evenly() -> None:
    client, server = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    buckets = Counter(
        flow_hash(client, port, server, 80, 6) % 5 for port in itertools.islice(range(32768, 61000), 5000)
    )
    assert all(900 <= count <= 1100 for count in buckets.values())


def test_flows_are_counted_by_place_whoever_names_it() -> None:
    balancer, one = Balancer(), backend(8000)
    assert balancer.established(one) == 0
    for each in (one, replace(one), replace(one, weight=7)):
        balancer.count(each, 1)
    balancer.count(replace(one), -1)
    assert [balancer.established(each) for each in (one, backend(8001))] == [2, 0]


def test_of_backends_that_are_gone_no_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 8)
    balancer, busy = Balancer(), backend(9000)
    balancer.count(busy, 1)
    for port in range(8000, 8100):
        for change in (1, -1):
            balancer.count(backend(port), change)
    assert len(balancer._active) <= 9
    assert len(balancer._known) <= 8
    balancer.count(busy, 1)
    assert balancer.established(busy) == 2
