"""What the appliance tells of traffic is what clients and servers have counted, to the packet and byte."""

import itertools
import json
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.objects import open_pinned_map
from rig import Appliance, Rig, wait_for
from rig.traffic import TIMEOUT
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

QUESTIONS, SIZE = 700, 300
HEADERS = 20 + 8
"""Of IPv4 and UDP: flows count IP lengths."""
PORT = 7007


@pytest.fixture(scope="module")
def counted(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="counted") as built:
        define(built)
        built.start()
        yield built


def _ask(port: int, questions: int) -> tuple[int, int]:
    """Datagrams and bytes that came back; the next question waits for the answer to the last."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.bind(("", port))
        client.connect(("10.1.0.1", PORT))
        answers = [
            client.recv(65536) for number in range(questions) if client.send(bytes([number % 251]) * SIZE)
        ]
    assert [answer[0] for answer in answers] == [number % 251 for number in range(questions)]
    return len(answers), sum(map(len, answers))


def _row(appliance: Appliance, port: int) -> dict[str, Any]:
    (row,) = appliance.json("flows", "--port", str(port), "--protocol", "udp")
    return dict(row)


def _top(appliance: Appliance, by: str) -> dict[str, dict[str, Any]]:
    found = appliance.json("top", "--by", by)
    return {row["name"]: row for row in found["rows"]}


def _send(packets: int) -> None:
    """What no mapping allows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(packets):
            client.sendto(b"x" * 72, ("10.2.0.2", 9999))


def _refused(appliance: Appliance, by: str) -> dict[str, int]:
    found = appliance.json("top", "--denied", "--by", by)
    return {row["name"]: row["packets"] for row in found["rows"]}


def test_flows_top_and_status_agree_with_the_client(rig: Rig, counted: Appliance) -> None:
    before = counted.json("status")["counters"].get("FORWARDED", {"packets": 0, "bytes": 0})
    total = {"packets": 0, "bytes": 0}
    for port, questions in ((40001, QUESTIONS), (40002, 3)):
        datagrams, size = rig.client.call(_ask, port, questions)
        assert (datagrams, size) == (questions, questions * SIZE)
        row = _row(counted, port)
        expected = questions * (SIZE + HEADERS)
        assert (row["packets_sent"], row["bytes_sent"]) == (questions, expected)
        assert (row["packets_received"], row["bytes_received"]) == (questions, expected)
        total = {"packets": total["packets"] + 2 * questions, "bytes": total["bytes"] + 2 * expected}
    after = counted.json("status")["counters"]["FORWARDED"]
    assert {name: after[name] - before[name] for name in total} == total
    for by, name in (
        ("service", "clients"),
        ("service", "echo"),
        ("source", "10.1.0.2"),
        ("destination", "10.1.0.1"),
        ("mapping", "echo"),
    ):
        row = _top(counted, by)[name]
        assert {key: row[key] for key in total} == total, by
        assert row["flows"] == 2


def test_refusals_are_counted_one_by_one(rig: Rig, counted: Appliance) -> None:
    rig.client.call(_send, 25)

    def told() -> bool:
        row = _top(counted, "reason").get("NO_MAPPING")
        return row is not None and (row["packets"], row["bytes"]) == (25, 25 * (72 + HEADERS))

    wait_for(told, "all 25 to be counted")
    assert counted.json("status")["counters"]["NO_MAPPING"] == {"packets": 25, "bytes": 25 * (72 + HEADERS)}
    # What is tried again at once is told with the next attempt, and counts before and after that.
    wait_for(lambda: _refused_to_all(counted) == {25}, "what is not told yet")
    time.sleep(1.1)
    rig.client.call(_send, 1)
    wait_for(lambda: _refused_to_all(counted) == {26}, "what the next attempt tells")


def _refused_to_all(appliance: Appliance) -> set[int]:
    """How many refusals are told of the first client. A list is used for a second."""
    sides = ("source", "10.1.0.2"), ("destination", "10.2.0.2"), ("service", "clients")
    return {_refused(appliance, by).get(name, 0) for by, name in sides}


def test_events_are_as_many_as_there_were(rig: Rig, counted: Appliance) -> None:
    """What starts and is refused, as a follower with a filter sees it."""
    words = (
        "events",
        "--kind",
        "flow-start,denied",
        "--source",
        "10.1.0.2",
        "--protocol",
        "udp",
        "--limit",
        "4",
    )
    watching = counted.host.popen([*counted.command, *words, "--output", "json"], env=counted.env)
    wait_for(lambda: _is_told_of_starts(counted), "the follower to listen")
    rig.clients[1].call(_denied, 9000)
    rig.client.call(_ask, 40003, 1)
    for port in (9001, 9002, 9003):
        rig.client.call(_denied, port)
    assert watching.wait() == 0
    told = [json.loads(line) for line in watching.output().splitlines()]
    assert [(each["kind"], each["destination_port"]) for each in told] == [
        ("flow-start", PORT),
        ("denied", 9001),
        ("denied", 9002),
        ("denied", 9003),
    ]
    assert {each["source"] for each in told} == {"10.1.0.2"}


def test_what_happens_beside_flows_is_told(counted: Appliance) -> None:
    follow = ("events", "--kind", "reload,interface,problem", "--output", "json")
    watching = counted.host.popen([*counted.command, *follow], env=counted.env)
    # Each change is another revision: one of them comes after the follower has begun to listen.
    flags = itertools.cycle(("--description", text) for text in ("one", "two"))

    def change() -> bool:
        counted.cli("mapping", "set", "echo", *next(flags))
        return '"reload"' in watching.output()

    wait_for(change, "a revision to be told of")
    counted.cli("interface", "remove", "outside2", "--yes")
    wait_for(lambda: '"lost"' in watching.output(), "an interface to be lost")
    counted.cli("interface", "add", "outside2", "--role", "outside")
    wait_for(lambda: '"attached"' in watching.output(), "an interface to be attached")
    counted.cli("interface", "add", "nowhere0", "--role", "outside", check=False)
    wait_for(lambda: '"began"' in watching.output(), "a problem to begin")
    counted.cli("interface", "remove", "nowhere0", "--yes")
    wait_for(lambda: '"ended"' in watching.output() or not watching.running, "it to end")
    watching.signal(signal.SIGINT)
    assert watching.wait() == 0
    told = [json.loads(line) for line in watching.output().splitlines()]
    changes = [(each["kind"], each["change"]) for each in told]
    assert ("reload", "applied") in changes
    lost, attached = (changes.index(("interface", change)) for change in ("lost", "attached"))
    assert lost < attached
    assert {told[lost]["name"], told[attached]["name"]} == {"outside2"}
    problem = told[changes.index(("problem", "began"))]
    assert (problem["component"], "nowhere0" in problem["message"]) == ("tier", True)


def test_ctrl_c_ends_a_follower_quietly(counted: Appliance) -> None:
    watching = counted.host.popen([*counted.command, "flows", "--follow"], env=counted.env)
    wait_for(lambda: _is_told_of_starts(counted), "the follower to listen")
    watching.signal(signal.SIGINT)
    assert (watching.wait(), watching.output()) == (0, "")
    wait_for(lambda: not _is_told_of_starts(counted), "nobody to listen")


def _denied(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("10.2.0.2", port))


def _is_told_of_starts(appliance: Appliance) -> bool:
    """Whether the programs tell of flows that start, which they do while somebody listens."""
    with open_pinned_map(appliance.bpffs / f"v{bpf.ABI}" / "settings") as held:
        raw = held.get(layouts.U32.pack(0)) or bytes(layouts.SETTINGS.size)
    values = dict(zip(layouts.SETTINGS.fields, layouts.SETTINGS.struct.unpack(raw), strict=True))
    return bool(values["wanted_events"] & 1 << layouts.EVENT_START)
