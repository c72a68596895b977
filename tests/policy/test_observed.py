"""Observations as JSON and back."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from marchproxy.model.errors import InvalidValue
from marchproxy.model.reason import Reason
from marchproxy.policy.observed import Observation, read_observation, read_observations, to_document

SEEN = Observation(
    source=ip_network("10.1.0.0/24"),
    destination=ip_address("2001:db8::7"),
    protocol="tcp",
    port=443,
    reason=Reason.NO_MAPPING,
    source_service="clients",
    name="api.example.com",
    count=7,
    first=1_800_000_000.0,
    last=1_800_000_060.0,
)


def test_what_is_written_is_read() -> None:
    assert read_observations([to_document(SEEN)]) == (SEEN,)
    assert to_document(SEEN)["first"] == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    "change",
    [
        {"source": "web"},
        {"source": "10.0.0.1/8"},
        {"destination": 7},
        {"protocol": "gre"},
        {"port": 65_536},
        {"port": "80"},
        {"reason": "BECAUSE"},
        {"count": 0},
        {"name": None},
        {"first": "soon"},
        {"last": 7},
    ],
)
def test_what_nobody_wrote_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        read_observation(to_document(SEEN) | change)


@pytest.mark.parametrize("document", [None, 7, [], "x", {}])
def test_what_is_no_observation_at_all(document: object) -> None:
    with pytest.raises(InvalidValue):
        read_observation(document)
