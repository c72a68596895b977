"""messages: what goes from one process to another arrives as it was."""

import pickle
from dataclasses import replace
from types import MappingProxyType

from marchproxy.dataplane.credentials.parts import BookParts
from marchproxy.dataplane.workers.messages import Know, Serve, Steer
from tests.policy.blocking import blocks
from tests.policy.build import mapping, plan, service


def test_a_plan_travels_with_its_read_only_mappings() -> None:
    made = plan(
        service("a", "10.0.0.0/8", "example.com"), service("b", "192.0.2.1"), mapping("m", "a", "b", "*:80")
    )
    made = replace(made, blocks=blocks("198.51.100.1", list=["203.0.113.0/24"]))
    arrived = pickle.loads(pickle.dumps(Serve(made, 3, 1, frozenset(), ())))  # noqa: S301  (our own)
    assert arrived.plan == made
    assert isinstance(arrived.plan.sources, type(made.sources))
    assert arrived.plan.blocks.names == MappingProxyType({})


def test_credentials_are_in_no_text() -> None:
    assert "BookParts" not in repr(Know(BookParts()))


def test_secrets_of_quic_are_in_no_text() -> None:
    assert "ABCD" not in repr(Steer(b"ABCD", 1, 2))
