"""echoes: real hosts, links and routers answer, say that it is too much, or say nothing."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.doctor import echoes
from marchproxy.dataplane.doctor.echoes import Echoes
from marchproxy.dataplane.doctor.sizes import Heard, Told
from rig import Rig

pytestmark = pytest.mark.requires("root", "netns", "veth", "ipv6", commands=["nft"])


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.behind(built.server, mtu=1400)
        yield built


def asked(rig: Rig, address: str, sizes: Sequence[int]) -> Heard:
    def ask() -> Heard:
        made = Echoes(ip_address(address))
        try:
            return made.ask(sizes)
        finally:
            made.close()

    return rig.middle.call(ask)


@pytest.mark.parametrize("address", ["10.2.0.2", "fd02::2"])
def test_what_passes_is_answered(rig: Rig, address: str) -> None:
    assert asked(rig, address, (100, 1280, 1500)) == Heard(frozenset({100, 1280, 1500}))


@pytest.mark.parametrize(("address", "router"), [("10.3.0.2", "10.2.0.2"), ("fd03::2", "fd02::2")])
def test_a_router_says_what_its_link_takes(rig: Rig, address: str, router: str) -> None:
    heard = asked(rig, address, (100, 1500))
    assert heard == Heard(frozenset({100}), Told(1400, router))


def test_silence_is_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoes, "PATIENCE", 0.1)
    assert asked(rig, "10.2.0.99", (100, 1500)) == Heard(frozenset())
    # Larger than the own device takes.
    assert asked(rig, "10.2.0.2", (100, 9000)) == Heard(frozenset({100}))


def test_answers_to_others_are_none_of_ours(rig: Rig) -> None:
    made = rig.middle.call(Echoes, ip_address("10.2.0.2"))
    try:
        payload = made._payload(100)
        assert made._size(b"\0\0\0\0\0\0\0\0" + payload, "10.2.0.2") == 100
        assert made._size(b"\0\0\0\0\0\0\0\0" + payload, "10.2.0.3") == 0
        assert made._size(b"\0\0\0\0\0\0\0\0" + bytes(len(payload)), "10.2.0.2") == 0
        assert made._told(b"\3\4\0\0\0\0\5\x14" + bytes(28), "10.2.0.1") is None
        assert made._told(b"\3\4\0\0", "10.2.0.1") is None
    finally:
        made.close()
