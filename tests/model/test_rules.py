"""Rules between the fields of one entity. Those of mappings are in test_documents.py, with their fields."""

import pytest

from marchproxy.model.appliance import ApplianceListener, Limit
from marchproxy.model.documents import Document, read_entity, read_service
from marchproxy.model.entities import MAX_LISTEN_PORTS, Auth, Interface, Mapping, SendProxy, Service
from marchproxy.model.errors import InvalidValue
from tests.model.strategies import KEYS

WEB: Document = {"name": "web", "addresses": ["10.0.0.1", "10.1.0.0/24", "2001:db8::1"]}


@pytest.mark.parametrize("drained", ["10.0.0.1", "10.1.0.7", "2001:db8::1"])
def test_what_is_drained_is_among_its_own(drained: str) -> None:
    assert read_service(WEB | {"drain": [drained]}).drain == (drained,)


@pytest.mark.parametrize("drained", ["10.0.0.2", "::1"])
def test_what_is_not_cannot_be_drained(drained: str) -> None:
    with pytest.raises(InvalidValue, match='service "web": drain'):
        read_service(WEB | {"drain": [drained]})


def test_which_addresses_a_host_name_has_only_dns_knows() -> None:
    assert read_service(WEB | {"addresses": ["db.example"], "drain": ["10.9.9.9"]}).drain == ("10.9.9.9",)


def test_source_addresses_need_masquerade() -> None:
    eth0: Document = {"name": "eth0", "role": "outside", "nat_addresses": ["192.0.2.1"]}
    assert read_entity(Interface, eth0 | {"masquerade": True}).nat_addresses == ("192.0.2.1",)
    with pytest.raises(InvalidValue, match="nat_addresses"):
        read_entity(Interface, eth0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"per": "source"}, "packets_per_second"),
        ({"per": "service", "flows_per_second": 1}, "services"),
        ({"per": "total", "flows_per_second": 1, "burst": 3601}, "burst"),
        ({"per": "total", "packets_per_second": 1, "bytes_per_second": 9000, "burst": 3601}, "burst"),
    ],
)
def test_a_limit_limits_something_for_somebody(fields: Document, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_entity(Limit, {"name": "x"} | fields)
    assert caught.value.field == field


def test_the_name_of_a_listener_is_what_it_is() -> None:
    fields: Document = {"kind": "dns", "bind": "[2001:db8::1]:53"}
    made = read_entity(ApplianceListener, fields)
    assert made.name == "dns@[2001:db8::1]:53"
    assert read_entity(ApplianceListener, fields | {"name": made.name}) == made
    with pytest.raises(InvalidValue, match='listener "other": name'):
        read_entity(ApplianceListener, fields | {"name": "other"})


JWT: Document = {"name": "api", "addresses": ["10.0.0.1"], "auth": "jwt"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"jwt_algorithm": "HS512", "jwt_audience": "a", "jwt_issuer": "i"},
        {"jwt_algorithm": "RS256", "jwt_keys": KEYS["RS256"]},
        {"jwt_algorithm": "eddsa", "jwt_keys": KEYS["EdDSA"]},
        {"jwt_algorithm": "ES256", "jwks_url": "https://issuer.example/keys"},
    ],
)
def test_jwts_have_a_secret_or_public_keys(fields: Document) -> None:
    assert read_entity(Service, JWT | fields).auth is Auth.JWT


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"jwt_keys": KEYS["RS256"]}, "jwt_algorithm"),
        ({"jwks_url": "https://issuer.example/keys"}, "jwt_algorithm"),
        ({"jwt_algorithm": "RS256"}, "jwt_keys"),
        ({"jwt_algorithm": "RS256", "jwt_keys": KEYS["ES256"]}, "jwt_keys"),
        ({"jwt_algorithm": "EdDSA", "jwt_keys": [*KEYS["EdDSA"], *KEYS["ES256"]]}, "jwt_keys"),
        ({"jwt_algorithm": "ES256", "jwt_keys": KEYS["ES256"], "jwks_url": "https://a.b/"}, "jwks_url"),
        ({"jwt_algorithm": "none"}, "jwt_algorithm"),
        ({"auth": "token", "jwt_audience": "a"}, "auth"),
        ({"auth": "none", "jwt_algorithm": "HS512"}, "auth"),
        ({"auth": "token", "jwt_algorithm": "RS256", "jwt_keys": KEYS["RS256"]}, "auth"),
    ],
)
def test_a_secret_and_public_keys_never_mix(fields: Document, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_entity(Service, JWT | fields)
    assert caught.value.field == field


MAPPING: Document = {"name": "m", "sources": ["a"], "destinations": ["b"], "protocols": ["tcp"]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sni": True}, None),
        ({"sni": True, "sni_missing": "address", "protocols": ["tcp", "https"]}, None),
        ({"sni": True, "protocols": ["tcp", "udp"]}, "protocols"),
        ({"sni": True, "protocols": ["quic"]}, "protocols"),
        ({"sni": True, "protocols": ["icmp"]}, "protocols"),
        ({"sni_missing": "allow"}, "sni_missing"),
        ({"sni_missing": "deny"}, None),
    ],
)
def test_a_tls_name_is_read_where_nothing_gets_around_it(fields: Document, field: str | None) -> None:
    if field is None:
        assert read_entity(Mapping, MAPPING | fields).sni is fields.get("sni", False)
        return
    with pytest.raises(InvalidValue) as caught:
        read_entity(Mapping, MAPPING | fields)
    assert caught.value.field == field


def test_how_many_ports_a_mapping_may_listen_on() -> None:
    fields: Document = {"name": "m", "sources": ["all"], "destinations": ["web"], "protocols": ["tcp"]}
    most = fields | {"listen": f"*:1001-{1000 + MAX_LISTEN_PORTS}"}
    made = read_entity(Mapping, most).listen
    assert made is not None
    assert len(made.ports) == MAX_LISTEN_PORTS
    with pytest.raises(InvalidValue, match='mapping "m": listen') as caught:
        read_entity(Mapping, fields | {"listen": f"*:1000-{1000 + MAX_LISTEN_PORTS}"})
    assert caught.value.hint == "expected at most 16384 ports"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"listen": "10.0.0.1:443"}, None),
        ({"listen": "10.0.0.1:443", "protocols": ["tcp", "https"]}, None),
        ({}, "tls"),
        ({"listen": "10.0.0.1:443", "protocols": ["tcp", "udp"]}, "protocols"),
        ({"listen": "10.0.0.1:443", "sni": True}, "tls"),
        ({"listen": "10.0.0.1:443", "tls": "lab/proxy"}, "tls"),
        ({"listen": "10.0.0.1:443", "tls": ""}, "tls"),
    ],
)
def test_tls_is_spoken_over_tcp_at_a_listener_of_our_own(fields: Document, field: str | None) -> None:
    document: Document = {
        "name": "m", "sources": ["a"], "destinations": ["b"], "protocols": ["tcp"], "tls": "proxy", **fields
    }  # fmt: skip
    if field is None:
        assert read_entity(Mapping, document).tls == "proxy"
        return
    with pytest.raises(InvalidValue, match=f'mapping "m": {field}'):
        read_entity(Mapping, document)


@pytest.mark.parametrize("own", [{"proxy_from": ["10.0.0.5"]}, {"send_proxy": "v1"}])
@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"listen": "10.0.0.1:443"}, ""),
        ({"listen": "10.0.0.1:443", "tls": "proxy"}, ""),
        ({}, "own"),
        ({"listen": "10.0.0.1:443", "protocols": ["tcp", "udp"]}, "protocols"),
        ({"listen": "10.0.0.1:443", "protocols": ["http"]}, "protocols"),
    ],
)
def test_the_proxy_protocol_is_of_streams_at_a_listener(own: Document, fields: Document, wrong: str) -> None:
    document = MAPPING | own | fields
    if not wrong:
        made = read_entity(Mapping, document)
        assert made.proxy_from or made.send_proxy is SendProxy.V1
        return
    with pytest.raises(InvalidValue) as caught:
        read_entity(Mapping, document)
    assert caught.value.field == (next(iter(own)) if wrong == "own" else wrong)


@pytest.mark.parametrize(
    ("kind", "tls", "read"),
    [
        ("explicit", "proxy", "proxy"),
        ("explicit", "default/proxy", "proxy"),
        ("explicit", "lab/proxy", "lab/proxy"),
        ("explicit", None, None),
        ("explicit", "two words", InvalidValue),
        ("explicit", "a/b/c", InvalidValue),
        ("dns", "proxy", InvalidValue),
    ],
)
def test_which_listeners_of_the_appliance_speak_tls(kind: str, tls: str | None, read: object) -> None:
    document: Document = {"kind": kind, "bind": "10.0.0.1:3128", "tls": tls}
    if read is InvalidValue:
        with pytest.raises(InvalidValue, match="tls"):
            read_entity(ApplianceListener, document)
    else:
        assert read_entity(ApplianceListener, document).tls == read


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"protocols": ["https", "quic"]}, None),
        ({"protocols": ["https", "quic"], "host": "h.example", "path_prefix": "/x"}, None),
        ({"protocols": ["http", "https", "quic"]}, None),
        ({"protocols": ["https", "quic"], "max_requests": 5}, None),
        ({"protocols": ["quic"]}, "protocols"),
        ({"protocols": ["http", "quic"]}, "protocols"),
        ({"protocols": ["https", "quic", "udp"]}, "protocols"),
        ({"protocols": ["https", "quic"], "tls": None, "host": "h.example"}, "protocols"),
        ({"protocols": ["https", "quic"], "sni": True}, "protocols"),
        ({"protocols": ["https", "quic"], "tls": None}, None),
    ],
)
def test_quic_beside_https_is_http3_where_tls_ends(fields: Document, field: str | None) -> None:
    document: Document = {
        **{"name": "m", "sources": ["a"], "destinations": ["b"], "tls": "proxy", "listen": "10.0.0.1:443"},
        **fields,
    }
    if field is None:
        assert read_entity(Mapping, document).http3 is (document["tls"] is not None)
        return
    with pytest.raises(InvalidValue) as refused:
        read_entity(Mapping, document)
    assert refused.value.field == field


OVER_QUIC = {"protocols": ["https", "quic"], "tls": "site"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"max_requests": 5, "max_waiting": 5}, None),
        ({"retry_on": ["503", "reset"]}, None),
        ({"max_waiting": 5}, "max_requests"),
        ({"retry_on": ["503"], "protocols": ["tcp"]}, "protocols"),
        ({"eject_after": 0, "listen": None}, "listen"),
        ({"connect_timeout": 1, "sni": True}, "connect_timeout"),
        ({"retry_on": ["500"]}, "retry_on"),
        ({"limit_requests": "100/s", "limit_burst": 10, "limit_per": "mapping"}, None),
        ({"limit_burst": 10}, "limit_requests"),
        ({"limit_per": "token"}, "limit_requests"),
        ({"limit_requests": "100"}, "limit_requests"),
        ({"limit_requests": "0/s"}, "limit_requests"),
        ({"limit_requests": "5/d"}, "limit_requests"),
        ({"limit_requests": "1000001/h"}, "limit_requests"),
        ({"eject_most": 0}, "eject_most"),
        ({"response_timeout": 3601}, "response_timeout"),
        ({"mirror": "canary"}, None),
        ({"mirror": "canary=25"}, None),
        ({"mirror": "canary=0"}, "mirror"),
        ({"mirror": "canary=101"}, "mirror"),
        ({"mirror": "canary="}, "mirror"),
        ({"mirror": "all"}, "mirror"),
        ({"mirror": "canary", "listen": None}, "listen"),
        ({"mirror": "canary", "action": "deny"}, "mirror"),
        ({"mirror": "canary", "redirect": "https://{host}", "destinations": []}, "mirror"),
        ({"early_data": True, **OVER_QUIC}, None),
        ({"early_data": True}, "protocols"),
        ({"early_data": True, **OVER_QUIC, "tls": None}, "protocols"),
        ({"early_data": True, **OVER_QUIC, "protocols": ["https"]}, "protocols"),
        ({"early_data": True, **OVER_QUIC, "action": "deny"}, "action"),
        ({"early_data": True, **OVER_QUIC, "auth_required": True}, "auth_required"),
        ({"early_data": True, **OVER_QUIC, "request_headers": ["remove Early-Data"]}, "request_headers"),
    ],
)
def test_what_is_said_about_requests_needs_http_at_a_listener(
    fields: dict[str, object], wrong: str | None
) -> None:
    document = {
        "name": "www",
        "sources": ["lan"],
        "destinations": ["web"],
        "protocols": ["http"],
        "listen": "10.1.0.1:80",
        **fields,
    }
    if wrong is None:
        read_entity(Mapping, document)
        return
    with pytest.raises(InvalidValue) as raised:
        read_entity(Mapping, document)
    assert raised.value.field == wrong
