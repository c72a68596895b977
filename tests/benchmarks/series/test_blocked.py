"""Series past blocked prefixes: all contenders have the same list, in the form that each takes."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest

from benchmarks.bed import DATAGRAMS, Bed
from benchmarks.series.blocked import (
    BlocksMarchProxy,
    BlocksMarchProxyXDP,
    BlocksNftables,
    datagrams,
    listed,
    outermost,
)
from rig import Rig


def test_a_list_is_written_once_and_is_always_the_same(tmp_path: Path) -> None:
    bed, other = (Mock(spec=Bed, rig=SimpleNamespace(files=tmp_path / name)) for name in ("one", "other"))
    for each in (bed, other):
        each.rig.files.mkdir()
    file = listed(bed, 100)
    assert len(file.read_text().splitlines()) == 100
    assert file.read_text() == listed(other, 100).read_text()
    file.write_text("kept")
    assert listed(bed, 100).read_text() == "kept"


def test_netfilter_is_given_what_lies_in_nothing_else_and_is_of_its_version() -> None:
    lines = [
        "8.1.0.0/16\n",
        "9.0.0.1/32\n",
        "2001:db8::/32\n",
        "8.0.0.0/8\n",
        "9.0.0.0/24\n",
        "7.255.255.255/32\n",
    ]
    assert list(outermost(lines)) == ["7.255.255.255/32", "8.0.0.0/8", "9.0.0.0/24"]
    assert list(outermost(["8.0.0.0/24", "8.0.0.0/16", "8.0.1.0/24", "8.1.0.0/16"])) == [
        *("8.0.0.0/16", "8.1.0.0/16")
    ]


def test_what_is_measured_does_not_depend_on_the_step() -> None:
    bed = Mock(spec=Bed)
    bed.exchange.return_value = {"answers": 50, "seconds": 0.5}
    assert datagrams(bed, "x", 1_000_000, 0.5) == 200.0
    bed.exchange.assert_called_with("x", DATAGRAMS, 0.5, sockets=4, in_flight=16, size=64)


@pytest.mark.requires("root", "netns", "veth", commands=["nft"])
def test_netfilter_takes_the_whole_list() -> None:
    with Rig() as rig:
        bed = cast(Bed, Mock(spec=Bed, rig=rig))
        expected = list(outermost(listed(bed, 10_000).read_text().splitlines()))
        contender = BlocksNftables(bed, 10_000)
        with contender.standing():
            found = rig.middle.run(["nft", "list", "set", "ip", "blocks", "blocked"]).stdout
            assert found.count(",") + 1 == len(expected)
            assert expected[-1].removesuffix("/32") in found
        assert not rig.middle.run(["nft", "list", "ruleset"]).stdout
        with BlocksNftables(bed, 0).standing():
            assert "blocked" not in rig.middle.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.requires("root", "netns", "veth")
@pytest.mark.parametrize("kind", [BlocksMarchProxy, BlocksMarchProxyXDP])
def test_marchproxy_has_the_whole_list(kind: type[BlocksMarchProxy]) -> None:
    with Rig() as rig:
        contender = kind(cast(Bed, Mock(spec=Bed, rig=rig)), 1_000)
        [row] = contender.appliance.json("block", "list")
        # What the list names twice is one entry.
        assert row["entries"] in range(990, 1_001)
        modes = {row["mode"] for row in contender.appliance.json("interface", "list")}
        assert modes == {kind.mode}
