"""Entities as rows."""

from dataclasses import fields

from marchproxy.cli.rows import row
from marchproxy.model.documents import read_interface, read_mapping, read_service
from marchproxy.model.entities import Interface, Mapping, Service

WEB = read_service({"name": "web", "addresses": ["10.0.0.1"]})
MAPPING = {"name": "m", "sources": ["a"], "destinations": ["b"], "protocols": ["tcp"]}


def test_every_field_is_there_and_the_name_first() -> None:
    for kind, entity in (
        (Service, WEB),
        (Mapping, read_mapping(MAPPING)),
        (Interface, read_interface({"name": "eth0", "role": "inside"})),
    ):
        made = row(entity)
        assert list(made) == [field.name for field in fields(kind)]
        assert list(row(entity, "lab"))[:2] == ["name", "cluster"]


def test_values_are_plain() -> None:
    made = row(
        read_mapping(MAPPING | {"listen": "*:80", "ports": "80,1-3", "expires": "2031-01-01T00:00:00Z"})
    )
    assert made["listen"] == "*:80"
    assert made["ports"] == "1-3,80"
    assert made["expires"] == "2031-01-01T00:00:00Z"
    assert type(made["action"]) is str
    assert row(WEB)["tags"] == []
    assert row(WEB)["port"] is None
