"""Where challenges cannot be answered, because something else listens there."""

import pytest

from marchproxy.client.certorigin import HTTP as HTTP_01
from marchproxy.client.certorigin import TLS_ALPN
from marchproxy.client.challengeport import expect_free
from marchproxy.model.appliance import ApplianceListener, ListenerKind
from marchproxy.model.endpoint import parse_endpoint, parse_endpoints
from marchproxy.model.entities import Mapping
from marchproxy.model.errors import Conflict
from marchproxy.model.protocol import Protocol
from marchproxy.model.snapshot import Cluster, Snapshot

HTTP = (Protocol.HTTP,)


def mapped(listen: str | None, protocols: tuple[Protocol, ...] = HTTP) -> Snapshot:
    where = parse_endpoints(listen) if listen else None
    mapping = Mapping("web", ("all",), ("web",), protocols, listen=where)
    return Snapshot((Cluster("default", mappings=(mapping,)),))


@pytest.mark.parametrize(
    ("listen", "wanted"),
    [
        ("*:80", "10.1.0.1:80"),
        ("10.1.0.1:80", "*:80"),
        ("10.1.0.1:80", "10.1.0.1:80"),
        ("0.0.0.0:79-81", "10.1.0.1:80"),
        ("[::]:80", "[fd01::1]:80"),
    ],
)
def test_a_mapping_is_in_the_way(listen: str, wanted: str) -> None:
    with pytest.raises(Conflict, match="mapping 'web' listens at") as raised:
        expect_free(mapped(listen), parse_endpoint(wanted), HTTP_01)
    assert "--path-prefix" in raised.value.hint


def test_where_tls_is_in_the_way_it_may_answer_itself() -> None:
    with pytest.raises(Conflict) as raised:
        expect_free(mapped("*:443"), parse_endpoint("*:443"), TLS_ALPN)
    assert "leave --challenge-listen out" in raised.value.hint


@pytest.mark.parametrize(
    ("listen", "protocols", "wanted"),
    [
        (None, HTTP, "*:80"),
        ("*:443", HTTP, "*:80"),
        ("*:80", (Protocol.UDP, Protocol.QUIC), "*:80"),
        ("10.1.0.2:80", HTTP, "10.1.0.1:80"),
        ("0.0.0.0:80", HTTP, "[fd01::1]:80"),
    ],
)
def test_a_mapping_is_not_in_the_way(
    listen: str | None, protocols: tuple[Protocol, ...], wanted: str
) -> None:
    expect_free(mapped(listen, protocols), parse_endpoint(wanted), HTTP_01)


def test_a_proxy_is_in_the_way_and_a_resolver_is_not() -> None:
    bind = parse_endpoint("10.1.0.1:80")
    expect_free(Snapshot(listeners=(ApplianceListener("dns", ListenerKind.DNS, bind),)), bind, HTTP_01)
    proxy = Snapshot(listeners=(ApplianceListener("explicit", ListenerKind.EXPLICIT, bind),))
    with pytest.raises(Conflict, match="listener 'explicit'"):
        expect_free(proxy, bind, HTTP_01)
