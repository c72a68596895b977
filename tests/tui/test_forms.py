"""What a form has, and what its text means."""

import pytest

from marchproxy.model.change import ENTITIES, Kind
from marchproxy.model.documents import read_entity, read_field, to_document
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.errors import InvalidValue
from marchproxy.tui.forms import FIELDS, Field, Shape, complaint, form_document, read_form
from tests.tui.stage import SNAPSHOT

CW = SNAPSHOT.clusters[0].mappings[0]


def texts(kind: Kind, **said: str) -> dict[str, str]:
    return {field.name: said.get(field.name, field.text({})) for field in FIELDS[kind]}


def named(kind: Kind, name: str) -> Field:
    return next(field for field in FIELDS[kind] if field.name == name)


@pytest.mark.parametrize("kind", FIELDS)
def test_every_line_is_a_field_of_the_model(kind: Kind) -> None:
    for field in FIELDS[kind]:
        for choice in field.choices:
            read_field(ENTITIES[kind], field.name, choice)
        if field.shape is Shape.FLAG:
            assert read_field(ENTITIES[kind], field.name, True) is True


def test_an_entity_survives_its_form() -> None:
    document = form_document(CW)
    said = {field.name: field.text(document) for field in FIELDS[Kind.MAPPING]}
    assert read_form(Kind.MAPPING, document, said) == CW


def test_fields_without_a_line_stay() -> None:
    service = read_entity(
        Service, {"name": "web", "addresses": ["10.0.0.1"], "auth": "jwt", "jwt_issuer": "https://x"}
    )
    document = to_document(service)
    said = {field.name: field.text(document) for field in FIELDS[Kind.SERVICE]}
    assert read_form(Kind.SERVICE, document, said) == service


def test_text_becomes_values() -> None:
    made = read_form(
        Kind.MAPPING,
        {},
        texts(
            Kind.MAPPING,
            name="m",
            sources="a, b",
            destinations="external",
            protocols="tcp",
            ports="80,443",
            priority="7",
            sni="yes",
            action="deny",
        ),
    )
    assert isinstance(made, Mapping)
    assert (made.sources, made.priority, made.sni, made.audit) == (("a", "b"), 7, True, False)
    assert (str(made.action), len(made.ports)) == ("deny", 2)


def test_what_is_said_of_requests_becomes_values() -> None:
    said = {"name": "m", "sources": "a", "destinations": "b", "protocols": "http", "listen": "10.1.0.1:80"}
    said |= {
        "host": "*.example.com",
        "path_prefix": "/api",
        "headers": "X-Env: a, b | !X-Old",
        "query": "v=2",
    }
    said |= {"request_headers": "set X-Env prod, or not | remove Cookie", "mirror": "canary=10"}
    made = read_form(Kind.MAPPING, {}, texts(Kind.MAPPING, **said))
    assert isinstance(made, Mapping)
    assert (made.headers, made.query) == (("!x-old", "x-env: a, b"), ("v=2",))
    assert made.request_headers == ("set x-env prod, or not", "remove cookie")
    assert (made.host, made.path_prefix, made.mirror) == ("*.example.com", "/api", "canary=10")
    tunnel = {"protocols": "tcp", "tls": "www", "proxy_from": "10.1.0.5, fd00::/64", "send_proxy": "v2"}
    plain = {name: said[name] for name in ("name", "sources", "destinations", "listen")}
    made = read_form(Kind.MAPPING, {}, texts(Kind.MAPPING, **plain, **tunnel))
    assert isinstance(made, Mapping)
    assert (made.tls, len(made.proxy_from), made.send_proxy) == ("www", 2, "v2")


def test_what_nobody_touched_stays_as_it_is() -> None:
    before = read_entity(
        Mapping,
        {
            **{"name": "m", "sources": ["a"], "destinations": ["b"], "protocols": ["http"]},
            **{"listen": "10.1.0.1:80", "response_headers": ["set X-Bar a | b"]},
        },
    )
    document = to_document(before)
    said = {field.name: field.text(document) for field in FIELDS[Kind.MAPPING]}
    assert read_form(Kind.MAPPING, document, said) == before


def test_what_is_missing_or_wrong_is_refused() -> None:
    with pytest.raises(InvalidValue, match="sources"):
        read_form(Kind.MAPPING, {}, texts(Kind.MAPPING, name="m"))
    assert complaint(Kind.MAPPING, named(Kind.MAPPING, "ports"), "99999").startswith("expected")
    assert complaint(Kind.MAPPING, named(Kind.MAPPING, "priority"), "many").startswith("expected")
    assert complaint(Kind.SERVICE, named(Kind.SERVICE, "addresses"), "10.0.0.300")
    assert complaint(Kind.MAPPING, named(Kind.MAPPING, "ports"), "443") == ""
    assert complaint(Kind.MAPPING, named(Kind.MAPPING, "ports"), "") == ""
    assert complaint(Kind.MAPPING, named(Kind.MAPPING, "sni"), "yes") == ""
