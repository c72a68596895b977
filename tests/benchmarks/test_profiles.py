"""Profiles: samples are added up by frame, and programs by what they did meanwhile."""

import json
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import profiles
from benchmarks.profiles import Ran, busiest, programs, since, weights
from rig import Appliance, RigError


def test_a_frame_counts_once_in_a_stack_that_has_it_twice() -> None:
    own, within = weights(["a;b;a 3", "a;c 2"])
    assert own == {"a": 3, "c": 2}
    assert within == {"a": 5, "b": 3, "c": 2}


def shown(*rows: tuple[int, str, int, int]) -> str:
    keys = ("id", "name", "run_cnt", "run_time_ns")
    return json.dumps([dict(zip(keys, row, strict=True)) for row in rows])


def test_programs_are_those_of_ours_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        shown((1, "marchproxy_tc", 10, 1000), (2, "other", 5, 5)),
        shown(
            (1, "marchproxy_tc", 14, 3000),
            (2, "other", 9, 9),
            (3, "marchproxy_xdp", 1, 7000),
            (4, "mp_idle", 0, 0),
        ),
    ]
    monkeypatch.setattr(profiles, "checked", lambda _: SimpleNamespace(stdout=said.pop(0)))
    before = programs()
    assert since(before) == [Ran("marchproxy_xdp", 1, 7000), Ran("marchproxy_tc", 4, 2000)]


def test_of_an_appliance_that_does_not_run_there_is_none() -> None:
    with pytest.raises(RigError, match="does not run"):
        busiest(cast(Appliance, SimpleNamespace(daemon=None)))
