import dataclasses
from ipaddress import ip_network

import pytest

from marchproxy.model.appliance import (
    DEFAULT_SETTINGS,
    ApplianceListener,
    Block,
    BlockList,
    Limit,
    ListenerKind,
    Per,
    Settings,
)
from marchproxy.model.documents import Entity, read_entity, to_document
from marchproxy.model.endpoint import parse_endpoint

ENTITIES = [
    Block("192.0.2.1"),
    BlockList("bad", "0" * 64, 9),
    Limit("fast", Per.SOURCE, packets_per_second=9, exempt=(ip_network("10.0.0.0/8"),)),
    ApplianceListener("dns@*:53", ListenerKind.DNS, parse_endpoint("*:53")),
    DEFAULT_SETTINGS,
]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: type(entity).__name__)
def test_entities_are_values(entity: Entity) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        entity.name = "other"  # type: ignore[misc]
    assert not hasattr(entity, "__dict__")
    assert hash(dataclasses.replace(entity)) == hash(entity)
    for field in dataclasses.fields(entity):
        assert field.default_factory is dataclasses.MISSING
        hash(field.default)


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: type(entity).__name__)
def test_these_are_what_documents_say(entity: Entity) -> None:
    assert read_entity(type(entity), to_document(entity)) == entity


def test_default_settings_are_an_empty_document() -> None:
    assert to_document(DEFAULT_SETTINGS) == {}
    assert read_entity(Settings, {}) == DEFAULT_SETTINGS
