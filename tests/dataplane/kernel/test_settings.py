"""settings: what an earlier daemon left is kept, and fields are written together."""

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.settings import (
    DENIED_EVENTS_PER_SECOND,
    REPEAT_MS,
    Settings,
)
from marchproxy.model import appliance
from marchproxy.model.appliance import Refusal
from tests.dataplane.kernel.fakes import FakeArray


@pytest.fixture
def held() -> FakeArray:
    return FakeArray("settings", value_size=layouts.SETTINGS.size)


def fields(held: FakeArray) -> dict[str, int]:
    raw = held.get(layouts.U32.pack(0))
    assert raw is not None
    return dict(zip(layouts.SETTINGS.fields, layouts.SETTINGS.struct.unpack(raw), strict=True))


def test_a_fresh_map_is_all_noughts(held: FakeArray) -> None:
    settings = Settings(held)
    assert (settings.bank, settings.revision) == (0, 0)


def test_preparing_keeps_the_policy_in_force(held: FakeArray) -> None:
    Settings(held).change(bank=1, revision=7)
    successor = Settings(held)
    successor.prepare(NatPorts(2000, 100))
    assert (successor.bank, successor.revision) == (1, 7)
    expected = {
        "nat_first": 2000,
        "nat_count": 100,
        "refusals_per_second": 1000,
        "denied_events_per_second": DENIED_EVENTS_PER_SECOND,
        "repeat_ms": REPEAT_MS,
    }
    assert fields(held) == fields(held) | expected | {"bank": 1, "revision": 7}


@pytest.mark.parametrize(("refusal", "silent"), [(Refusal.ANSWER, 0), (Refusal.DROP, 1)])
def test_denied_clients_are_answered_as_the_appliance_says(
    held: FakeArray, refusal: Refusal, silent: int
) -> None:
    Settings(held).refuse_as(appliance.Settings(refusal=refusal, refusals_per_second=7))
    assert (fields(held)["silent"], fields(held)["refusals_per_second"]) == (silent, 7)


def test_bank_and_revision_change_in_one_write(held: FakeArray) -> None:
    settings = Settings(held)
    settings.change(bank=1, revision=3)
    assert held.written == 1


def test_the_route_epoch_wraps_around(held: FakeArray) -> None:
    settings = Settings(held)
    settings.change(route_epoch=0xFFFFFFFF)
    settings.routes_changed()
    assert fields(held)["route_epoch"] == 0
    settings.routes_changed()
    assert fields(held)["route_epoch"] == 1


def test_what_could_not_be_written_is_not_believed(held: FakeArray, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(held)

    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(held, "set", refuse)
    with pytest.raises(OSError, match="no"):
        settings.change(bank=1)
    assert settings.bank == 0
