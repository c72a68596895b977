"""Answers kept, and let go of."""

import dns.name
import dns.rdatatype

from marchproxy.dataplane.dns.cache import STALE, Cache, Stored
from marchproxy.dataplane.names.exchange import Question


def question(name: str, *, dnssec: bool = False) -> Question:
    return Question(dns.name.from_text(name), dns.rdatatype.A, dnssec=dnssec)


def test_an_answer_is_fresh_for_its_ttl_and_kept_for_a_day() -> None:
    cache, stored = Cache(), Stored(b"x", 100, 60)
    cache.put(question("a.example.com"), stored)
    assert cache.get(question("A.Example.COM"), 100) is stored
    assert (stored.is_fresh(159), stored.is_fresh(160)) == (True, False)
    assert cache.get(question("a.example.com"), 160 + STALE) is stored
    assert cache.get(question("a.example.com"), 161 + STALE) is None
    assert len(cache) == 0


def test_who_wants_signatures_asks_another_question() -> None:
    cache = Cache()
    cache.put(question("a.example.com"), Stored(b"x", 0, 60))
    assert cache.get(question("a.example.com", dnssec=True), 0) is None


def test_the_longest_unused_go_first_by_number_and_by_size() -> None:
    cache = Cache(entries=3)
    for name in "abc":
        cache.put(question(name), Stored(b"x", 0, 60))
    cache.get(question("a"), 0)
    cache.put(question("d"), Stored(b"x", 0, 60))
    assert [name for name in "abcd" if cache.get(question(name), 0)] == ["a", "c", "d"]
    small = Cache(octets=1600)
    for number in range(100):
        small.put(question(f"n{number}"), Stored(bytes(100), 0, 60))
    assert len(small) == 16
    small.put(question("n99"), Stored(bytes(50), 0, 60))
    assert len(small) == 16
    small.put(question("huge"), Stored(bytes(1000), 0, 60))
    assert small.get(question("huge"), 0) is None
