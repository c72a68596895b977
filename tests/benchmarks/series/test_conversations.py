"""Series of traffic in many flows: all of them are there before anything is measured."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from benchmarks.bed import Bed, compiled
from benchmarks.contenders import Routing
from benchmarks.series import conversations
from benchmarks.series.conversations import FlowsMarchProxy, FlowsNftables, asked, most, opened, with_flows
from rig import Rig, RigError
from rig.waiting import wait_for

MANY = 2_000


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Rig() as rig:
        yield cast(Bed, Mock(spec=Bed, rig=rig))


def printing(text: str) -> Bed:
    """One whose client prints this."""
    made = Mock(spec=Bed, rig=Mock())
    made.rig.client.run.return_value.stdout = text
    return cast(Bed, made)


@pytest.mark.requires(commands=["clang"])
def test_both_ways_count_and_what_was_lost_is_no_figure() -> None:
    assert asked(printing('{"answers": 50, "seconds": 0.5, "lost": 0}'), "x", 7, 0.5) == 200.0
    with pytest.raises(RigError, match="64 datagrams were lost, 5000 answered"):
        opened(printing('{"answers": 5000, "seconds": 0.5, "lost": 64}'), 5000)


def test_netfilter_is_measured_with_as_many_as_the_machine_lets_it_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "CONNTRACK_HOLDS", tmp_path / "most")
    (tmp_path / "most").write_text("262144\n")
    made = Mock(spec=Bed, rig=Mock())
    assert most(FlowsNftables(made)) == 262_144
    assert most(Routing(made)) == 1_000_000


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", commands=["clang", "nft"])
def test_every_conversation_is_a_flow_before_any_is_chosen(bed: Bed) -> None:
    stands = with_flows(bed)
    assert [stand.steps for stand in stands[:3]] == [(1,)] * 3
    [ours] = {stand.contender for stand in stands if isinstance(stand.contender, FlowsMarchProxy)}
    assert isinstance(ours, FlowsMarchProxy)

    def entries() -> int:
        tables = ours.appliance.json("status", check=False)["flow_table"]
        return int(next(table["used"] for table in tables if table["name"] == "flows"))

    with ours.standing():
        opened(bed, MANY)
        wait_for(lambda: entries() == 2 * MANY, "all flows to be counted", timeout=20)
        assert asked(bed, "", MANY, 0.2) > 0
        assert entries() == 2 * MANY
    [theirs] = {stand.contender for stand in stands if isinstance(stand.contender, FlowsNftables)}
    with theirs.standing():
        opened(bed, MANY)
        assert asked(bed, "", MANY, 0.2) > 0
        count = bed.rig.middle.call(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text)
        assert int(count) >= MANY


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [compiled("conversations"), *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)


@pytest.fixture
def port() -> Iterator[str]:
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        number = str(free.getsockname()[1])
    server = subprocess.Popen([compiled("conversations"), "serve", number], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    yield number
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.mark.requires(commands=["clang"])
def test_each_conversation_is_opened_by_two_messages_and_all_answers_count(port: str) -> None:
    said = json.loads(run("open", "127.1.0.0", port, "1000").stdout)
    assert (said["answers"], said["lost"]) == (2_000, 0)
    for count in ("1", "1000"):
        said = json.loads(run("ask", "127.1.0.0", port, count, "0.2").stdout)
        assert said["answers"] > 0
        assert said["seconds"] >= 0.2


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Answers from an address that nobody asked."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as other:
        server.bind(("0.0.0.0", 0))
        other.bind(("127.9.9.9", 0))

        def answer() -> None:
            data, source = server.recvfrom(64)
            other.sendto(data, source)

        threading.Thread(target=answer, daemon=True).start()
        yield str(server.getsockname()[1])


@pytest.mark.requires(commands=["clang"])
def test_an_answer_from_elsewhere_is_an_error(elsewhere: str) -> None:
    done = run("open", "127.1.0.0", elsewhere, "1")
    assert done.returncode == 1
    assert done.stderr == "an answer comes from elsewhere\n"


@pytest.mark.requires(commands=["clang"])
def test_what_nobody_answers_is_lost() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.1.0.0", 0))
        said = json.loads(run("open", "127.1.0.0", str(silent.getsockname()[1]), "1").stdout)
    assert (said["answers"], said["lost"]) == (0, 1)
