import dataclasses

import pytest

from marchproxy.model.entities import Interface, Mapping, Role, Service
from marchproxy.model.protocol import Protocol

ENTITIES = [
    Service("web", ()),
    Mapping("m", ("all",), ("web",), (Protocol.TCP,)),
    Interface("eth0", Role.INSIDE),
]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: type(entity).__name__)
def test_entities_are_values(entity: Service | Mapping | Interface) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        entity.name = "other"  # type: ignore[misc]
    assert not hasattr(entity, "__dict__")
    assert dataclasses.replace(entity) == entity
    assert hash(dataclasses.replace(entity)) == hash(entity)


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: type(entity).__name__)
def test_defaults_are_immutable(entity: Service | Mapping | Interface) -> None:
    """A default in a list or dict would be shared by every entity."""
    for field in dataclasses.fields(entity):
        assert field.default_factory is dataclasses.MISSING
        hash(field.default)
