"""ripe: what the kernel is told of a tunnel, in the terms that outlive a daemon."""

import time
from datetime import UTC, datetime
from ipaddress import ip_address

from marchproxy.dataplane.admission.ripe import ripe
from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.model.protocol import Transport
from marchproxy.policy.evaluate import Query
from tests.policy.build import mapping, plan, service


def tunnel(verified: Verified | None, name: str) -> Tunnel:
    ledger = Ledger()
    ledger.adopt(plan(service("a", "10.0.0.0/8"), service("b", "192.0.2.1"), mapping("m", "a", "b")), 7)
    query = Query(ip_address("10.0.0.1"), ip_address("192.0.2.1"), 443, Transport.TCP)
    conversation = ledger.begin(query, 40000, ledger.evaluator.evaluate(query), name)
    conversation.began = time.monotonic() - 10
    return Tunnel(conversation, verified, None)


def test_a_tunnel_with_a_credential_and_a_name() -> None:
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    made = tunnel(Verified("vault", "3", expires), "www.example.com")
    found = ripe(made)
    assert (found.number, found.mapping, found.revision) == (made.conversation.number, "m", 7)
    assert 9e9 < time.monotonic_ns() - found.started < 20e9
    told = found.remembered
    assert (told.service, told.credential, told.name) == ("vault", "3", "www.example.com")
    assert told.expires == int(expires.timestamp())


def test_one_without_either() -> None:
    told = ripe(tunnel(None, "")).remembered
    assert (told.service, told.credential, told.name, told.expires) == ("", "", "", 0)
