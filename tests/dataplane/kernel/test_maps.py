"""maps: typed access by bytes, whole tables by batch calls, and what happens at their edges."""

import errno
import itertools
import struct
import threading
from collections import deque
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import maps
from marchproxy.dataplane.kernel.errors import KernelError, MapFull
from marchproxy.dataplane.kernel.libbpf import possible_cpus
from marchproxy.dataplane.kernel.maps import EXIST, NO_EXIST, Map
from marchproxy.dataplane.kernel.objects import BpfObject

pytestmark = pytest.mark.requires("bpf", "ringbuf", commands=["clang"])

MANY = 10_000


def number(value: int) -> bytes:
    return struct.pack("=Q", value)


def index(value: int) -> bytes:
    return struct.pack("=I", value)


def prefix(value: int) -> bytes:
    """A /32 as the LPM trie's key: prefix length, then the address in network byte order."""
    return struct.pack("=I", 32) + struct.pack("!I", value)


@pytest.fixture
def hash_map(tables: BpfObject) -> Map:
    return tables.maps["hash"]


@pytest.fixture
def large(tables_object: Path) -> BpfObject:
    return BpfObject.load(tables_object, max_entries={"hash": MANY, "trie": MANY, "array": MANY})


def test_knows_its_own_shape(tables: BpfObject) -> None:
    shape = tables.maps["percpu_array"]
    assert (shape.key_size, shape.value_size, shape.max_entries, shape.percpu) == (4, 4, 4, True)
    assert repr(tables.maps["hash"]) == "<Map hash HASH 8+8 x 16>"


def test_set_get_delete(hash_map: Map) -> None:
    assert hash_map.get(number(1)) is None
    assert not hash_map.has(number(1))
    hash_map.set(number(1), number(10))
    assert hash_map.get(number(1)) == number(10)
    assert hash_map.has(number(1))
    assert hash_map.delete(number(1))
    assert not hash_map.delete(number(1))


@pytest.mark.parametrize(("present", "flags", "code"), [(True, NO_EXIST, "EEXIST"), (False, EXIST, "ENOENT")])
def test_flags_guard_a_write(hash_map: Map, present: bool, flags: int, code: str) -> None:
    if present:
        hash_map.set(number(1), number(10))
    with pytest.raises(KernelError, match=code) as raised:
        hash_map.set(number(1), number(11), flags)
    assert errno.errorcode[raised.value.errno] == code


@pytest.mark.parametrize("key", [b"", b"1234567", b"123456789"])
def test_a_key_of_another_size_never_reaches_the_kernel(hash_map: Map, key: bytes) -> None:
    expected = f"a key of {len(key)} bytes, where the map has 8"
    for attempt in (
        lambda: hash_map.get(key),
        lambda: hash_map.has(key),
        lambda: hash_map.set(key, number(1)),
        lambda: hash_map.delete(key),
        lambda: hash_map.update_many([(number(1), number(1)), (key, number(1))]),
        lambda: hash_map.delete_many([number(1), key]),
    ):
        with pytest.raises(ValueError, match=expected):
            attempt()
    with pytest.raises(ValueError, match="a value of 7 bytes, where the map has 8"):
        hash_map.set(number(1), b"1234567")


@pytest.mark.parametrize(("name", "key"), [("hash", number), ("trie", prefix)])
def test_a_full_map_is_named_and_keeps_what_fitted(tables: BpfObject, name: str, key: object) -> None:
    assert callable(key)
    full = tables.maps[name]
    entries = [(key(i), number(i)) for i in range(full.max_entries + 5)]
    with pytest.raises(MapFull, match=f"map '{name}' is full: it holds at most 16 entries") as raised:
        full.update_many(entries)
    assert raised.value.written == full.max_entries
    assert sorted(full.items()) == sorted(entries[:16])
    with pytest.raises(MapFull):
        full.set(*entries[-1])


def test_an_array_ends_and_does_not_fill_up(tables: BpfObject) -> None:
    array = tables.maps["array"]
    with pytest.raises(KernelError, match="map 'array' ends at index 15"):
        array.set(index(16), number(1))
    with pytest.raises(KernelError, match="cannot delete from map 'array'"):
        array.delete(index(0))
    assert list(array.items()) == [(index(i), number(0)) for i in range(16)]


@pytest.mark.parametrize(("name", "key"), [("hash", number), ("trie", prefix), ("array", index)])
def test_whole_tables(large: BpfObject, name: str, key: object) -> None:
    assert callable(key)
    entries = {key(i): number(i * 3) for i in range(MANY)}
    with large:
        table = large.maps[name]
        table.update_many(list(entries.items()))
        read = list(table.items())
        assert len(read) == MANY
        assert dict(read) == entries
        assert set(table.keys()) == entries.keys()


def test_a_small_batch_grows_to_the_fullest_bucket(large: BpfObject) -> None:
    with large:
        table = large.maps["hash"]
        table.update_many([(number(i), number(i)) for i in range(MANY)])
        assert len(list(table.items(batch=1))) == MANY


def test_nothing_to_do_is_done(hash_map: Map) -> None:
    hash_map.update_many([])
    assert hash_map.delete_many([]) == 0
    assert list(hash_map.items()) == []


def test_delete_many_ignores_what_is_missing(large: BpfObject) -> None:
    with large:
        table = large.maps["hash"]
        table.update_many([(number(i), number(i)) for i in range(0, MANY, 2)])
        assert table.delete_many([number(i) for i in range(MANY - 4)]) == MANY // 2 - 2
        assert sorted(table.keys()) == [number(MANY - 4), number(MANY - 2)]
        assert table.delete_many([number(1)] * (maps.BATCH + 1)) == 0


def test_a_map_without_batch_calls_gives_the_same(tables: BpfObject) -> None:
    """Device maps have none. Interface 1 is the loopback, in every namespace."""
    devices = tables.maps["devices"]
    entries = [(index(i), index(1)) for i in range(5)]
    devices.update_many(entries)
    assert sorted(devices.items()) == entries
    assert sorted(devices.keys()) == [key for key, _ in entries]
    assert devices.delete_many([index(3), index(9), index(4)]) == 2
    assert sorted(devices.keys()) == [index(0), index(1), index(2)]
    with pytest.raises(MapFull) as raised:
        devices.update_many([(index(i), index(1)) for i in range(100, 120)])
    assert raised.value.written == 13


def test_walking_survives_removal_of_what_it_stands_on(tables: BpfObject) -> None:
    devices = tables.maps["devices"]
    devices.update_many([(index(i), index(1)) for i in range(10)])
    seen = {key for key, _ in devices.items() if devices.delete(key)}
    assert seen == {index(i) for i in range(10)}
    assert list(devices.items()) == []


def test_a_walk_that_never_ends_is_given_up(tables: BpfObject) -> None:
    """Each key is replaced by another as soon as it is seen: the kernel starts over every time."""
    devices = tables.maps["devices"]
    devices.set(index(0), index(1))
    fresh = itertools.count(1)

    def replace(key: bytes) -> None:
        devices.delete(key)
        devices.set(index(next(fresh)), index(1))

    with pytest.raises(KernelError, match="map 'devices' changes faster than it can be read"):
        deque(map(replace, devices.keys()), maxlen=0)


def test_reading_while_others_write_sees_each_lasting_entry_once(large: BpfObject) -> None:
    with large:
        table = large.maps["hash"]
        lasting = {number(i) for i in range(MANY // 2)}
        table.update_many([(key, number(0)) for key in lasting])
        passing = [(number(i), number(1)) for i in range(MANY // 2, MANY)]
        done = threading.Event()

        def churn() -> None:
            while not done.is_set():
                table.update_many(passing)
                table.delete_many([key for key, _ in passing])

        writer = threading.Thread(target=churn)
        writer.start()
        try:
            for _ in range(5):
                seen = [key for key, _ in table.items(batch=256) if key in lasting]
                assert len(seen) == len(lasting)
                assert set(seen) == lasting
        finally:
            done.set()
            writer.join()


def test_percpu_values_come_by_cpu(tables: BpfObject) -> None:
    values = [index(cpu + 7) for cpu in range(possible_cpus())]
    array = tables.maps["percpu_array"]
    array.set_percpu(index(2), values)
    assert array.get_percpu(index(2)) == values
    zeros = [index(0)] * possible_cpus()
    assert dict(array.items_percpu()) == {index(i): values if i == 2 else zeros for i in range(4)}


def test_percpu_hash(tables: BpfObject) -> None:
    table = tables.maps["percpu_hash_with_a_long_name"]
    assert table.get_percpu(index(1)) == []
    values = [number(cpu) for cpu in range(possible_cpus())]
    table.set_percpu(index(1), values)
    assert list(table.items_percpu()) == [(index(1), values)]
    assert list(table.keys()) == [index(1)]
    assert table.delete_many([index(1), index(2)]) == 1


def test_percpu_needs_a_value_for_each_cpu(tables: BpfObject) -> None:
    with pytest.raises(ValueError, match="a value of"):
        tables.maps["percpu_hash_with_a_long_name"].set_percpu(index(1), [number(0)] * (possible_cpus() + 1))


def test_percpu_and_plain_are_not_mixed_up(tables: BpfObject) -> None:
    with pytest.raises(TypeError, match="use the methods with _percpu"):
        tables.maps["percpu_array"].get(index(0))
    with pytest.raises(TypeError, match="use the methods with _percpu"):
        tables.maps["percpu_hash_with_a_long_name"].update_many([(index(0), number(0))])
    with pytest.raises(TypeError, match="use the methods without _percpu"):
        tables.maps["hash"].get_percpu(number(0))


def test_a_closed_map_says_so(hash_map: Map) -> None:
    hash_map.close()
    hash_map.close()
    with pytest.raises(KernelError, match="cannot read from map 'hash': Bad file descriptor"):
        hash_map.get(number(1))


def test_many_threads_at_once(large: BpfObject) -> None:
    with large:
        table = large.maps["hash"]
        wrong: list[int] = []

        def work(first: int) -> None:
            for i in range(first, MANY, 4):
                table.set(number(i), number(i))
                if table.get(number(i)) != number(i):
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(list(table.keys())) == MANY
