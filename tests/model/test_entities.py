import dataclasses

import pytest

from marchproxy.model.entities import Action, Interface, JwtAlgorithm, Mapping, Role, Service
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


@pytest.mark.parametrize(
    ("on_expiry", "grace"), [("keep", None), ("cut", 0), ("grace:1", 1), ("grace:2592000", 2_592_000)]
)
def test_how_long_a_tunnel_outlives_its_credential(on_expiry: str, grace: int | None) -> None:
    assert Mapping("m", (), (), (), on_expiry=on_expiry).grace == grace


def test_which_algorithms_have_public_keys() -> None:
    kinds = {algorithm.value: algorithm.key_type for algorithm in JwtAlgorithm}
    secrets = dict.fromkeys(("HS256", "HS384", "HS512"))
    assert kinds == {**secrets, "RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}


def test_mappings_are_tried_by_priority_then_deny_then_name() -> None:
    mappings = [
        Mapping(name, ("a",), ("b",), (Protocol.TCP,), priority=priority, action=action)
        for name, priority, action in (
            ("z", 1, Action.ALLOW),
            ("b", 5, Action.ALLOW),
            ("a", 5, Action.ALLOW),
            ("c", 5, Action.DENY),
        )
    ]
    assert [each.name for each in sorted(mappings, key=lambda each: each.precedence)] == ["z", "c", "a", "b"]
