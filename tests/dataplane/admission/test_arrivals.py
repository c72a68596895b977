"""Clients as they arrive."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.model.protocol import Transport
from tests.dataplane.admission.desk import LIMITS, blocking, desk, explicit
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import ask, dial


def test_what_a_record_of_a_client_is_about() -> None:
    who = Client(ip_address("10.0.0.1"), 4711, ip_address("192.0.2.1"), 80)
    query = who.query()
    assert (query.source, query.destination, query.port) == (who.source, who.local, 80)
    assert query.transport is Transport.TCP
    assert query.is_local()
    other = who.query(ip_address("10.9.9.9"), 443)
    assert (str(other.destination), other.port) == ("10.9.9.9", 443)


@looped
async def test_one_too_many_of_a_source_is_sent_away() -> None:
    async with desk(limits=replace(LIMITS, per_source=1)) as at, dial(at.port):
        with pytest.raises(ConnectionResetError):
            await ask(at.port)
        assert at.reasons() == [("denied", "FLOW_TABLE_FULL")]


@looped
async def test_who_is_blocked_is_sent_away_unheard() -> None:
    async with desk() as at:
        at.apply(blocking(explicit(at.port), "127.0.0.1"))
        with pytest.raises(ConnectionResetError):
            await ask(at.port)
        assert at.reasons() == [("denied", "BLOCKED_SOURCE")]
