"""making: the same instances as the class makes."""

from dataclasses import FrozenInstanceError, dataclass, field

import pytest

from marchproxy.model.making import maker


@dataclass(frozen=True, slots=True)
class Point:
    """Has defaults of both sorts."""

    x: int
    y: int = 7
    tags: list[str] = field(default_factory=list)

    @property
    def both(self) -> int:
        return self.x + self.y


def test_they_are_equal_and_of_the_class() -> None:
    made = maker(Point)(1, 2, ["a"])
    assert type(made) is Point
    assert made == Point(1, 2, ["a"])
    assert repr(made) == repr(Point(1, 2, ["a"]))
    assert made.both == 3
    assert hash(maker(Slotted)("a")) == hash(Slotted("a"))


def test_defaults_and_names() -> None:
    make = maker(Point)
    assert make(x=1) == Point(1)
    assert make(1).tags is not make(1).tags


def test_they_are_frozen() -> None:
    made = maker(Point)(1)
    with pytest.raises(FrozenInstanceError):
        made.x = 2  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Slotted:
    name: str


@dataclass(frozen=True)
class Open:
    name: str


@dataclass(frozen=True, slots=True)
class Busy:
    name: str

    def __post_init__(self) -> None:
        assert self.name


@pytest.mark.parametrize("cls", [Open, Busy, str])
def test_others_are_refused(cls: type) -> None:
    with pytest.raises(TypeError):
        maker(cls)
