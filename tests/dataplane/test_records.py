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


def test_what_services_are_added_to_is_otherwise_the_same() -> None:
    """In all fields, those too that are added later: none may have its default here."""
    whole = flow()
    decision = dataclasses.replace(
        whole.decision, mapping="web", revision=3, name="example.org", interface="eth0", count=4
    )
    defaults = {each.name: each.default for each in dataclasses.fields(decision)}
    named = decision.between("clients", "servers")
    assert [name for name, value in defaults.items() if getattr(named, name) == value] == []
    expected = dataclasses.replace(decision, source_service="clients", destination_service="servers")
    assert named == expected
    assert whole.by(named) == dataclasses.replace(whole, decision=named)
