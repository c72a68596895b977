"""rehearsal: what has no answer. The answers themselves are compared in tests/namespace/test_explain.py."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import rehearsal
from marchproxy.dataplane.kernel.loading import PRIVATE, READ_OR_WRITTEN, RehearsalProgram
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.rehearsal import rehearse
from marchproxy.model.protocol import Transport
from marchproxy.policy.evaluate import Query
from tests.dataplane.kernel.fakes import FakeMap

QUERY = Query(ip_address("10.1.0.2"), ip_address("10.1.0.1"), 80, Transport.TCP)


def never() -> RehearsalProgram:
    raise AssertionError("there is nothing to be asked")


@pytest.mark.parametrize(
    ("interface", "why"), [(None, "no route leads to 10.1.0.2"), ("eth3", "not attached")]
)
def test_who_arrives_at_none_of_our_interfaces_is_not_asked_about(
    monkeypatch: pytest.MonkeyPatch, interface: str | None, why: str
) -> None:
    monkeypatch.setattr(rehearsal, "way_to", lambda address: interface)
    names = MappingNames(FakeMap("mapping_names", value_size=128))
    found = rehearse(QUERY, never, names, {"eth0"})
    assert isinstance(found, str)
    assert why in found


def test_what_programs_write_is_not_shared() -> None:
    """The policy is; of it `pools` holds turns, which a constant keeps still."""
    assert PRIVATE.keys() & READ_OR_WRITTEN >= {"flows", "opening", "counters", "denied", "events"}
    assert not PRIVATE.keys() & {"rules", "pools", "listeners", "settings", "interfaces", "blocks"}
