"""Facts as values."""

import dataclasses

import pytest

from marchproxy.dataplane.records import Traffic
from tests.dataplane.facts import flow


def test_traffic_adds_up() -> None:
    assert Traffic(1, 100) + Traffic(2, 50) == Traffic(3, 150)
    assert sum([Traffic(1, 1), Traffic(2, 2)], Traffic()) == Traffic(3, 3)


def test_a_record_that_has_left_the_data_plane_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        flow().state = flow().state  # type: ignore[misc]
