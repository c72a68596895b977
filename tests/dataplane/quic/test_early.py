"""early: with whose tickets something is taken before a handshake is complete, and when."""

import time
from ipaddress import ip_address

import pytest
from aioquic.tls import OfferedPsks

from marchproxy.dataplane.quic.early import KEPT, WINDOW, Early
from marchproxy.dataplane.quic.replays import Replays

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
ADDED = 2**32 - 5000


def offered(binder: bytes, age: float = 0.0, count: int = 1) -> OfferedPsks:
    """What a client says whose ticket is of that age."""
    said = (int(age * 1000) + ADDED) % 2**32
    return OfferedPsks(identities=[(b"ticket", said)] * count, binders=[binder] * count)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_is_taken_once(clock: list[float]) -> None:
    replays = Replays()
    memo = Early(replays, HERE).memo()
    clock[0] += 60
    assert Early(replays, HERE).takes(memo, ADDED, offered(b"one", 60))
    assert not Early(replays, HERE).takes(memo, ADDED, offered(b"one", 60))
    # A client may well use its ticket for two connections: that is no replay.
    assert Early(replays, HERE).takes(memo, ADDED, offered(b"two", 60))
    clock[0] += 2 * WINDOW + 1
    assert not Early(replays, HERE).takes(memo, ADDED, offered(b"one", 60))


def test_it_is_taken_of_who_was_given_the_ticket(clock: list[float]) -> None:
    replays = Replays()
    memo = Early(replays, HERE).memo()
    assert not Early(replays, THERE).takes(memo, ADDED, offered(b"a"))
    assert not Early(replays, ip_address("::192.0.2.1")).takes(memo, ADDED, offered(b"b"))
    assert not Early(Replays(), HERE).takes(memo, ADDED, offered(b"c"))
    assert not Early(replays, HERE).takes(b"", ADDED, offered(b"d"))
    assert not Early(replays, HERE).takes(memo, ADDED, None)
    assert not Early(replays, HERE).takes(memo, ADDED, offered(b"e", count=2))
    assert Early(replays, HERE).takes(memo, ADDED, offered(b"f"))


@pytest.mark.parametrize(
    ("age", "claimed", "taken"),
    [
        (0.0, WINDOW - 1, True),
        (100.0, 101 - WINDOW, True),
        (100.0, 99 - WINDOW, False),
        (100.0, 101 + WINDOW, False),
        (KEPT - 1, KEPT - 1, True),
        (KEPT + 1, KEPT + 1, False),
        (-1.0, 0.0, False),
    ],
)
def test_its_time_is_now(clock: list[float], age: float, claimed: float, taken: bool) -> None:
    replays = Replays()
    memo = Early(replays, HERE).memo()
    clock[0] += age
    assert Early(replays, HERE).takes(memo, ADDED, offered(b"a", claimed)) is taken
