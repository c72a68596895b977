"""The fleet's import files."""

from typing import Any

import pytest

from marchproxy.cli.fleet import import_mappings, import_services, is_fleet
from marchproxy.model.documents import read_mapping, read_service, to_document
from marchproxy.model.errors import InvalidValue

SERVICE = {"name": "web", "ip_fqdn": "10.0.0.1"}
MAPPING = {"name": "m", "source_services": "a", "dest_services": "b", "protocol": "tcp"}


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ({"services": [SERVICE]}, True),
        ({"mappings": [MAPPING]}, True),
        ({"services": [], "metadata": {}}, True),
        ({"services": [{"name": "web", "addresses": ["10.0.0.1"]}]}, False),
        ({"services": []}, False),
        ({"services": "text", "mappings": [5, None]}, False),
        ({"format": "marchproxy/1", "clusters": []}, False),
    ],
)
def test_recognised_by_its_keys(document: dict[str, Any], answer: bool) -> None:
    assert is_fleet(document) is answer


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"ip_fqdn": "db.example.com"}, {"addresses": ["db.example.com"]}),
        ({"ip_fqdn": "10.0.0.2, 10.0.0.3"}, {"addresses": ["10.0.0.2", "10.0.0.3"]}),
        ({"ip_fqdn": ["fd00::1"]}, {"addresses": ["fd00::1"]}),
        ({"port": 80}, {"port": 80}),
        ({"port": "80"}, {"port": 80}),
        ({"port": None, "collection": "", "protocol": None}, {}),
        ({"protocol": "grpc"}, {"protocol": "grpc"}),
        ({"collection": "backends"}, {"collection": "backends"}),
        ({"auth_type": "none"}, {}),
        ({"auth_type": "base64"}, {"auth": "token"}),
        ({"auth_type": "Token"}, {"auth": "token"}),
        ({"auth_type": "jwt"}, {"auth": "jwt"}),
        ({"tls_enabled": True}, {"tls": True}),
        ({"tls_enabled": False}, {}),
        ({"health_check_enabled": False, "health_check_path": "/x"}, {}),
        ({"health_check_enabled": True}, {"health": "tcp"}),
        ({"health_check_enabled": True, "protocol": "udp"}, {"health": "icmp", "protocol": "udp"}),
        ({"health_check_enabled": True, "health_check_path": "/x"}, {"health": "http:/x"}),
        (
            {"health_check_enabled": True, "health_check_path": "/x", "protocol": "https"},
            {"health": "https:/x", "protocol": "https"},
        ),
        (
            {"health_check_enabled": True, "health_check_path": "/x", "tls_enabled": True},
            {"health": "https:/x", "tls": True},
        ),
        ({"health_check_interval": 30}, {"health_interval": 30}),
        ({"description": "text"}, {"description": "text"}),
    ],
)
def test_service_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    (service,) = import_services({"services": [SERVICE | fields]}, {})
    assert to_document(service) == {"name": "web", "addresses": ["10.0.0.1"]} | expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"source_services": "a,c"}, {"sources": ["a", "c"]}),
        ({"source_services": ["all"], "dest_services": ["collection:x"]}, None),
        ({"listen_port": 8080}, {"listen": "*:8080"}),
        ({"listen_port": "8080"}, {"listen": "*:8080"}),
        ({"protocol": "tcp,udp"}, {"protocols": ["tcp", "udp"]}),
        ({"protocol": "icmp"}, {"protocols": ["icmp"]}),
        ({"protocol": "http", "path_prefix": "/api"}, {"protocols": ["http"], "path_prefix": "/api"}),
        ({"path_prefix": "/"}, {}),
        ({"path_prefix": ""}, {}),
        ({"description": "text"}, {"description": "text"}),
    ],
)
def test_mapping_fields(fields: dict[str, Any], expected: dict[str, Any] | None) -> None:
    (mapping,) = import_mappings({"mappings": [MAPPING | fields]}, {})
    if expected is None:
        expected = {"sources": ["all"], "destinations": ["collection:x"]}
    base = {"name": "m", "sources": ["a"], "destinations": ["b"], "protocols": ["tcp"]}
    assert to_document(mapping) == base | expected


def test_an_update_leaves_alone_what_the_file_has_no_word_for() -> None:
    service = read_service({"name": "web", "addresses": ["10.9.9.9"], "weight": 5, "tags": ["x"], "port": 1})
    (updated,) = import_services({"services": [SERVICE | {"port": 2}]}, {"web": service})
    assert to_document(updated) == {
        "name": "web",
        "addresses": ["10.0.0.1"],
        "port": 2,
        "tags": ["x"],
        "weight": 5,
    }
    held = read_mapping(
        {
            "name": "m",
            "sources": ["z"],
            "destinations": ["z"],
            "protocols": ["udp"],
            "priority": 3,
            "action": "deny",
        }
    )
    (changed,) = import_mappings({"mappings": [{"name": "m", "source_services": "a"}]}, {"m": held})
    assert to_document(changed) == to_document(held) | {"sources": ["a"]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"services": [SERVICE, SERVICE]}, "services entry 2: name: 'web'"),
        ({"services": [SERVICE | {"cluster_id": 3}]}, "services entry 1: field: 'cluster_id'"),
        ({"services": [SERVICE | {"auth_type": "basic"}]}, "services entry 1: auth_type: 'basic'"),
        ({"services": [SERVICE | {"auth_type": 5}]}, "services entry 1: auth_type: 5"),
        ({"services": [SERVICE | {"port": 70000}]}, 'services entry 1, service "web": port: 70000'),
        ({"services": [SERVICE | {"tls_enabled": "yes"}]}, 'services entry 1, service "web": tls'),
        ({"services": [SERVICE | {"health_check_enabled": "on"}]}, "services entry 1: health_check_enabled"),
        ({"services": [SERVICE | {"ip_fqdn": 5}]}, "services entry 1: ip_fqdn: 5"),
        ({"services": [{"name": "web"}]}, 'services entry 1, service "web": addresses'),
        ({"services": [{"ip_fqdn": "10.0.0.1"}]}, "services entry 1"),
        ({"services": [{**SERVICE, "name": ["x"]}]}, "services entry 1"),
        ({"services": ["web"]}, "services entry 1: entry: 'web'"),
        ({"services": [SERVICE], "version": 1}, "field: 'version'"),
        ({"services": SERVICE}, "services: "),
    ],
)
def test_errors_name_entry_and_field(document: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        import_services(document, {})
    assert caught.value.message.startswith(says)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"listen_port": 0}, "mappings entry 1: listen_port: 0"),
        ({"listen_port": "http"}, "mappings entry 1: listen_port"),
        ({"protocol": "icmp", "listen_port": 80}, 'mappings entry 1, mapping "m": '),
        ({"path_prefix": "/x"}, 'mappings entry 1, mapping "m": protocols'),
        ({"dest_services": [5]}, "mappings entry 1: dest_services"),
        ({"priority": 5}, "mappings entry 1: field: 'priority'"),
    ],
)
def test_errors_in_mappings(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        import_mappings({"mappings": [MAPPING | fields]}, {})
    assert caught.value.message.startswith(says)
