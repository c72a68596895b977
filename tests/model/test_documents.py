import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.documents import (
    Document,
    Entity,
    read_entity,
    read_field,
    read_interface,
    read_mapping,
    read_service,
    to_document,
    write_field,
)
from marchproxy.model.errors import InvalidValue
from marchproxy.model.readers import parse_expiry, parse_health
from tests.model.strategies import DOCUMENTS

SERVICE: Document = {"name": "web", "addresses": ["10.0.0.1"]}
MAPPING: Document = {"name": "m", "sources": ["all"], "destinations": ["web"], "protocols": ["tcp"]}
INTERFACE: Document = {"name": "eth0", "role": "inside"}


def _round_trip(read: Callable[[object], Entity], document: Document) -> None:
    entity = read(document)
    written = to_document(entity)
    assert read(json.loads(json.dumps(written))) == entity
    assert to_document(read(written)) == written
    for field in fields(entity):
        value = getattr(entity, field.name)
        assert (field.name in written) == (value != field.default)
        assert read_field(type(entity), field.name, write_field(field.name, value)) == value


@pytest.mark.parametrize("entity", DOCUMENTS, ids=lambda entity: entity.__name__)
@given(st.data())
def test_every_entity_survives_json(entity: type[Entity], data: st.DataObject) -> None:
    _round_trip(partial(read_entity, entity), data.draw(DOCUMENTS[entity]))


def test_a_document_holds_only_what_is_not_default() -> None:
    assert (
        to_document(read_service(SERVICE | {"weight": 1, "tls": False, "tags": [], "port": None})) == SERVICE
    )
    assert to_document(read_mapping(MAPPING | {"priority": 100, "action": "allow", "ports": ""})) == MAPPING
    assert to_document(read_interface(INTERFACE | {"mode": "auto"})) == INTERFACE


def test_lists_fold_and_sort_so_that_equal_meanings_are_equal_documents() -> None:
    one = read_service(
        SERVICE | {"addresses": ["B.example", "10.0.0.1", "b.example."], "tags": ["y", "x", "y"]}
    )
    two = read_service(SERVICE | {"addresses": ["10.0.0.1/32", "b.example"], "tags": ["x", "y"]})
    assert one == two
    assert to_document(one)["addresses"] == ["10.0.0.1", "b.example"]


@pytest.mark.parametrize("ports", ["80,443", "443,80", [80, 443], ["443", 80], "80-80,443"])
def test_ports_in_every_form(ports: object) -> None:
    assert to_document(read_mapping(MAPPING | {"ports": ports}))["ports"] == "80,443"


def _wrong(field: str, *values: object, **beside: object) -> list[tuple[Document, str]]:
    return [({**beside, field: value}, field) for value in values]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *_wrong("name", "all", "", None, ["web"], 7),
        *_wrong("addresses", [], "10.0.0.1", None, [["x"]], ["10.0.0.1/8"], [1]),
        *_wrong("port", 0, 65536, True, 80.0, "http", [80]),
        *_wrong("protocol", "sctp", 6),
        *_wrong("tags", "a", None, [1], ["a b"]),
        *_wrong("auth", "basic", None, True),
        *_wrong("weight", 0, 257, 1.0, True, "1", None),
        *_wrong("tls", 0, "yes", None),
        *_wrong("health", "http", "http:x", "tcp:", "ping", None),
        *_wrong("health_interval", 0, 3601, "5"),
        *_wrong("description", "a\nb", "x" * 501, None, "\0", "\ud800"),
        ({"colour": "red"}, "field"),
        ({3: "x"}, "field"),
    ],
)
def test_a_wrong_service_names_service_and_field(change: Document, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_service(SERVICE | change)
    assert caught.value.field == field
    assert caught.value.message.startswith("service ")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *_wrong("sources", [], ["a b"], "all", None),
        *_wrong("destinations", [], [""]),
        *_wrong("protocols", [], ["sctp"], "tcp"),
        *_wrong("ports", "80-", [True], None, 0, {}, ["80", None]),
        *_wrong("listen", "80", "host:80", 80),
        *_wrong("priority", -1, 65536, "1"),
        *_wrong("action", "drop", None),
        *_wrong("host", "10.0.0.1", "*.10.0.0.1", "*.*.a", "*", "", protocols=["http"]),
        *_wrong("path_prefix", "x", "/a b", "/" + "x" * 1024, protocols=["http"]),
        *_wrong("auth_required", 1, "no"),
        *_wrong("expires", "2026-12-31", "soon", 1798761599),
        # Rules between fields.
        *_wrong("ports", "80", protocols=["icmp"]),
        *_wrong("listen", "*:80", protocols=["icmp"]),
        ({"protocols": ["icmp", "tcp"], "listen": "*:80"}, "listen"),
        ({"host": "a.example"}, "protocols"),
        ({"protocols": ["tcp", "http"], "path_prefix": "/a"}, "protocols"),
    ],
)
def test_a_wrong_mapping_names_mapping_and_field(change: Document, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_mapping(MAPPING | change)
    assert caught.value.field == field
    assert caught.value.message.startswith('mapping "m": ')


def test_icmp_beside_protocols_with_ports_may_have_ports() -> None:
    assert read_mapping(MAPPING | {"protocols": ["icmp", "tcp"], "ports": "80"}).ports


@pytest.mark.parametrize(
    ("read", "document"), [(read_service, SERVICE), (read_mapping, MAPPING), (read_interface, INTERFACE)]
)
def test_what_is_required_is_missed_by_name(read: Callable[[object], Entity], document: Document) -> None:
    for name in document:
        with pytest.raises(InvalidValue) as caught:
            read({key: value for key, value in document.items() if key != name})
        assert (caught.value.field, caught.value.expected) == (name, "one: it is required")


@pytest.mark.parametrize("read", [read_service, read_mapping, read_interface])
@pytest.mark.parametrize("document", [None, [], "web", 7])
def test_only_objects_are_documents(read: Callable[[object], Entity], document: object) -> None:
    with pytest.raises(InvalidValue, match=r"is not valid|has no value"):
        read(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data(), JSON)
def test_no_value_is_too_strange_to_be_refused_properly(data: st.DataObject, value: Any) -> None:
    entity = data.draw(st.sampled_from(list(DOCUMENTS)))
    read = partial(read_entity, entity)
    document = data.draw(DOCUMENTS[entity])
    name = data.draw(st.sampled_from([field.name for field in fields(entity)]))
    with suppress(InvalidValue):
        accepted = read(document | {name: value})
        assert read(to_document(accepted)) == accepted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-31T23:59:59Z", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2026-12-31T23:59:59.9+02:00", datetime(2026, 12, 31, 21, 59, 59, tzinfo=UTC)),
        (" 2026-12-31 23:59:59-05:00 ", datetime(2027, 1, 1, 4, 59, 59, tzinfo=UTC)),
    ],
)
def test_instants_are_utc_to_the_second(text: str, expected: datetime) -> None:
    assert parse_expiry(text) == expected
    assert parse_expiry(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "2026-12-31", "2026-12-31T23:59:59", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"],
)
def test_refuses_instants_without_a_zone_or_outside_the_calendar(text: str) -> None:
    with pytest.raises(InvalidValue, match="expires"):
        parse_expiry(text)


def test_an_instant_in_another_zone_is_written_in_utc() -> None:
    noon = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert write_field("expires", noon) == "2026-06-01T10:00:00Z"
    assert write_field("expires", datetime(900, 1, 1, tzinfo=UTC)) == "0900-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "text", ["none", "tcp", "icmp", "http:/", "https:/healthz?full=1", "grpc", "grpcs:shop.Cart"]
)
def test_health_checks(text: str) -> None:
    assert parse_health(f" {text} ") == text


@pytest.mark.parametrize(
    "text", ["", "http", "http:", "http:x", "http:/a b", "tcp:/", "TCP", "http:/" + "x" * 1024]
)
def test_refuses_health_checks_that_cannot_be_sent(text: str) -> None:
    with pytest.raises(InvalidValue, match="health"):
        parse_health(text)
