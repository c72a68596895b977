"""Requests counted by client, credential or mapping, in one table of all processes."""

import os
import random
import subprocess
import sys

import pytest

from marchproxy.dataplane.http.rates import SIZE, Rates, share
from marchproxy.model.entities import LimitPer
from marchproxy.policy.plan import RequestLimit
from tests.dataplane.http.site import answer, ask, get, response, said, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial

TEN = RequestLimit(10.0, 5, LimitPer.SOURCE)


def test_a_burst_and_then_the_rate() -> None:
    rates, now = Rates(), 1000.0
    assert [rates.wait("m", "k", TEN, now) for _ in range(5)] == [0.0] * 5
    assert rates.wait("m", "k", TEN, now) == pytest.approx(0.1)
    assert rates.wait("m", "k", TEN, now + 0.05) == pytest.approx(0.05)
    passed = sum(not rates.wait("m", "k", TEN, now + tick / 100) for tick in range(1, 1001))
    assert passed == 100
    assert [rates.wait("m", "k", TEN, now + 60) for _ in range(6)].count(0.0) == 5


def test_keys_and_mappings_are_apart() -> None:
    rates = Rates()
    one = RequestLimit(1.0, 1, LimitPer.SOURCE)
    assert [rates.wait(mapping, key, one, 5.0) for mapping in "ab" for key in "xy"] == [0.0] * 4
    assert all(rates.wait(mapping, key, one, 5.0) for mapping in "ab" for key in "xy")


def test_nobody_waits_longer_than_its_bucket_whatever_is_in_the_table() -> None:
    descriptor = share()
    rates = Rates(descriptor)
    assert not rates.wait("m", "k", TEN, 5.0)
    raw = bytearray(os.pread(descriptor, SIZE, 0))
    raw[32:] = random.Random(7).randbytes(SIZE - 32)
    os.pwrite(descriptor, raw, 0)
    os.close(descriptor)
    for number in range(1000):
        assert 0.0 <= rates.wait("m", f"{number}", TEN, 5.0) <= 0.6


def test_any_number_of_clients_has_room_and_most_are_remembered() -> None:
    rates = Rates()
    one = RequestLimit(0.01, 1, LimitPer.SOURCE)
    for number in range(20_000):
        assert rates.wait("m", f"client {number}", one, 5.0) == 0.0
    again = sum(rates.wait("m", f"client {number}", one, 6.0) == 0.0 for number in range(20_000))
    assert again < 200
    for number in range(200_000):
        rates.wait("m", f"flood {number}", one, 7.0)
    # Whoever's time is over gives way first; a flood cannot make anybody wait who may come.
    assert rates.wait("m", "new", one, 1000.0) == 0.0


def test_processes_count_together() -> None:
    descriptor = share()
    rates = Rates(descriptor)
    for _ in range(3):
        assert not rates.wait("m", "k", TEN, 5.0)
    program = (
        "import sys; from marchproxy.dataplane.http.rates import Rates; "
        "from marchproxy.model.entities import LimitPer; from marchproxy.policy.plan import RequestLimit; "
        "rates = Rates(int(sys.argv[1])); ten = RequestLimit(10.0, 5, LimitPer.SOURCE); "
        "print([rates.wait('m', 'k', ten, 5.0) == 0.0 for _ in range(3)])"
    )
    words = [sys.executable, "-c", program, str(descriptor)]
    done = subprocess.run(words, pass_fds=[descriptor], capture_output=True, text=True, check=True)
    os.close(descriptor)
    assert done.stdout.strip() == "[True, True, False]"


@looped
async def test_one_too_many_is_told_when_to_come_again() -> None:
    async with served(answer(), limit_requests="2/m") as (at, backend), dial(at.port) as (reader, writer):
        heads = []
        for _ in range(3):
            writer.write(get())
            heads.append((await response(reader))[0])
        assert [head.split()[1] for head in heads] == ["200", "200", "429"]
        assert said(heads[2], "x-marchproxy-reason") == ["RATE_LIMITED"]
        assert 28 <= int(said(heads[2], "retry-after")[0]) <= 30
        assert len(backend.heads) == 2
        assert ("denied", "RATE_LIMITED") in at.reasons()
        # Other routes have limits of their own, or none.
        writer.write(get("/other"))
        assert (await response(reader))[0].split()[1] == "404"


@looped
async def test_what_is_refused_anyway_counts_for_nobody() -> None:
    async with served(answer(), limit_requests="1/m", auth_required=True) as (at, _):
        for _ in range(3):
            [(head, _)] = await ask(at, get())
            assert head.split()[1] in ("401", "403")
