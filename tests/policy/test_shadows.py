"""Whom earlier mappings leave nothing; beside what test_check.py says about it as a whole."""

import pytest

from marchproxy.model.entities import Mapping, Service
from marchproxy.policy.shadows import shadowed
from tests.policy.build import mapping, plan, service, texts

OFFICE = service("office", "10.0.0.0/16")
FLOOR = service("floor", "10.0.9.0/24")
NAMED = service("named", "10.0.9.7", "n.example.com")
WEB = service("web", "10.1.0.1")
AT = "192.0.2.1:80"


def told(*entities: Service | Mapping, unsettled: frozenset[str] = frozenset()) -> list[str]:
    """The shadowed mappings, where none restricts."""
    return [text.split()[2] for text in texts(shadowed(plan(*entities), frozenset(), unsettled))]


@pytest.mark.parametrize("listen", [AT, None])
def test_what_expires_shadows_nothing(listen: str | None) -> None:
    later = mapping("later", "floor", "web", listen, priority=200)
    lasting = mapping("earlier", "office", "web", listen)
    passing = mapping("earlier", "office", "web", listen, expires="2026-12-31T00:00:00Z")
    assert told(OFFICE, FLOOR, WEB, lasting, later) == ["later:"]
    assert told(OFFICE, FLOOR, WEB, passing, later) == []


@pytest.mark.parametrize("listen", [AT, None])
def test_addresses_that_move_are_shadowed_by_name_only(listen: str | None) -> None:
    later = mapping("later", "named", "web", listen, priority=200)
    around, itself = (mapping("earlier", name, "web", listen) for name in ("office", "named"))
    moving = frozenset({"named"})
    assert told(OFFICE, NAMED, WEB, around, later, unsettled=moving) == []
    assert told(OFFICE, NAMED, WEB, itself, later, unsettled=moving) == ["later:"]


def test_every_rule_of_a_mapping_has_to_be_shadowed() -> None:
    first, both = mapping("first", "office", "web"), mapping("both", "external", "web")
    second = mapping("second", "external,office", "web", priority=200)
    assert told(OFFICE, FLOOR, WEB, first, second) == []
    assert told(OFFICE, FLOOR, WEB, first, both, second) == ["second:"]
