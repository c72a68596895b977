"""`marchproxy capture` as an operator uses it, read by tshark; and what is left of it afterwards."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.objects import open_pinned_map
from rig import Appliance, Rig
from rig.payload import digest
from rig.process import Process
from rig.traffic import HTTP, ask_udp
from rig.waiting import wait_for

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6", commands=["tshark"])

SIZE = 300_000


def begin(appliance: Appliance, file: Path, *flags: str) -> Process:
    """Start a capture into `file`, and wait until it takes packets."""
    words = [*appliance.command, "capture", "--write", str(file), *flags]
    started = appliance.host.popen(words, env=appliance.env)
    wait_for(
        lambda: not started.running or (file.exists() and file.stat().st_size > 0), "the capture to begin"
    )
    assert started.running, started.tail()
    return started


def ended(appliance: Appliance) -> None:
    """Wait until the daemon has seen that the reader left, which is after the command has ended."""
    wait_for(lambda: not captures(appliance), "the daemon to stop capturing")


def captures(appliance: Appliance) -> bool:
    """Whether the programs look for packets to take."""
    (pin,) = appliance.bpffs.glob("v*/settings")
    with open_pinned_map(pin) as settings:
        raw = settings.get(layouts.U32.pack(0)) or b""
    values = dict(zip(layouts.SETTINGS.fields, layouts.SETTINGS.struct.unpack(raw), strict=True))
    return bool(values["wanted_events"] & layouts.CAPTURING)


def shown(file: Path, wanted: str = "frame", *fields: str, whole: bool = True) -> list[tuple[str, ...]]:
    """What tshark reads of the packets that fit `wanted`; not `whole`: the last may still be written."""
    words = [word for field in fields or ("frame.comment",) for word in ("-e", field)]
    # Two processors may carry one connection's packets past each other; without it no answer is read then.
    words += ["-o", "tcp.reassemble_out_of_order:TRUE"]
    run = subprocess.run(
        ["tshark", "-n", "-r", str(file), "-Y", wanted, "-T", "fields", *words],
        capture_output=True,
        text=True,
        check=whole,
    )
    return [tuple(line.split("\t")) for line in run.stdout.splitlines()]


def download(address: str, port: int, size: int = SIZE) -> str:
    with HTTP(address, port) as connection:
        return connection.download(size)


def refused(address: str, port: int) -> bool:
    try:
        download(address, port, 1)
    except OSError:
        return True
    return False


def test_request_and_answer_as_both_sides_see_them(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    file = tmp_path / "web.pcapng"
    capture = begin(appliance, file, "--mapping", "web", "--snap", "32768", "--packets", "100000")
    assert rig.client.call(download, "10.1.0.1", 8080) == digest(SIZE)
    # From then on nothing more comes of this connection.
    wait_for(lambda: len(shown(file, "tcp.flags.fin == 1", whole=False)) >= 4, "the connection's end")
    capture.signal(signal.SIGINT)
    assert capture.wait() == 0
    ended(appliance)
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    ends = Counter(
        shown(file, "tcp.flags.syn == 1", "frame.interface_name", "ip.src", "ip.dst", "tcp.flags.ack")
    )
    assert set(ends) == {
        ("inside0", "10.1.0.2", "10.1.0.1", "0"),
        ("outside0", "10.2.0.1", "10.2.0.2", "0"),
        ("outside0", "10.2.0.2", "10.2.0.1", "1"),
        ("inside0", "10.1.0.1", "10.1.0.2", "1"),
    }
    # Payload lies outside of the linear part of large packets.
    for address in ("10.2.0.2", "10.1.0.1"):
        lengths = shown(file, f"ip.src == {address} and tcp.len > 0", "tcp.len")
        assert sum(int(length) for (length,) in lengths) > SIZE
        assert shown(file, f"ip.src == {address} and http.response.code == 200")
    comments = {comment.split(" flow=")[0] for (comment,) in shown(file)}
    assert comments == {"reason=FORWARDED mapping=web"}


def test_refusal_with_reason_and_mapping_over_a_pipe(rig: Rig, appliance: Appliance) -> None:
    words = [*appliance.command, "capture", "--denied", "--packets", "2", "--duration", "30s"]
    with subprocess.Popen(
        appliance.host.enter(words), env={**os.environ, **appliance.env}, stdout=subprocess.PIPE
    ) as capture:
        wait_for(lambda: captures(appliance), "the capture to begin")
        assert rig.client.call(refused, "10.1.0.1", 8083)
        assert rig.client.call(refused, "10.1.0.1", 8082)
        read = subprocess.run(
            ["tshark", "-n", "-r", "-", "-T", "fields", "-e", "tcp.dstport", "-e", "frame.comment"],
            stdin=capture.stdout,
            capture_output=True,
            text=True,
            check=True,
        )
        assert capture.wait() == 0
    ended(appliance)
    assert read.stdout.splitlines() == [
        "8083\treason=DENY_MAPPING mapping=forbidden taken=denied tier=tc",
        "8082\treason=NO_MAPPING taken=denied tier=tc",
    ]


def test_limits_hold(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    few, small, short = (tmp_path / f"{name}.pcapng" for name in ("few", "small", "short"))
    capture = begin(appliance, few, "--packets", "7", "--snap", "64")
    rig.client.call(download, "10.1.0.1", 8080)
    assert capture.wait() == 0
    assert [cut for (cut,) in shown(few, "frame", "frame.cap_len") if int(cut) > 64] == []
    assert len(shown(few)) == 7
    ended(appliance)
    capture = begin(appliance, small, "--size", "20k")
    rig.client.call(download, "10.1.0.1", 8080)
    assert capture.wait() == 0
    assert 10_000 < small.stat().st_size <= 20_000 + 100
    ended(appliance)
    began = time.monotonic()
    capture = begin(appliance, short, "--duration", "2s", "--rate", "2")
    while capture.running:
        rig.client.call(download, "10.1.0.1", 8080)
    assert capture.wait() == 0
    # Two, each on both sides, of every second that it has seen a part of.
    assert 4 <= len(shown(short)) <= 4 * (time.monotonic() - began + 1)
    assert "more came faster than --rate" in capture.output()
    ended(appliance)


def test_datagrams_of_ipv6_by_service(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    file = tmp_path / "echo.pcapng"
    capture = begin(appliance, file, "--service", "echo", "--protocol", "udp", "--packets", "4")
    rig.client.call(refused, "10.1.0.1", 8083)
    assert rig.client.call(ask_udp, "fd01::1", 7007, b"hello") == b"hello"
    assert capture.wait() == 0
    ended(appliance)
    assert shown(file, "udp", "ipv6.src", "udp.payload") == [
        ("fd01::2", b"hello".hex()),
        ("fd02::1", b"hello".hex()),
        ("fd02::2", b"hello".hex()),
        ("fd01::1", b"hello".hex()),
    ]


def test_killed_command_leaves_nothing_behind(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    file = tmp_path / "killed.pcapng"
    capture = begin(appliance, file, "--duration", "1h")
    assert captures(appliance)
    rig.client.call(download, "10.1.0.1", 8080, 1000)
    wait_for(lambda: len(shown(file, whole=False)) > 4, "packets in the file")
    capture.kill()
    ended(appliance)
    again = begin(appliance, tmp_path / "again.pcapng", "--packets", "1")
    rig.client.call(download, "10.1.0.1", 8080, 1000)
    assert again.wait() == 0
    ended(appliance)


def test_what_is_only_asked_is_not_captured(appliance: Appliance, tmp_path: Path) -> None:
    """`explain` runs the programs on a packet that never was on a wire."""
    file = tmp_path / "asked.pcapng"
    capture = begin(appliance, file)
    for port, code in (("8080", 0), ("8083", 10)):
        question = ("--from", "10.1.0.2", "--to", "10.1.0.1", "--protocol", "tcp", "--port", port)
        assert appliance.cli("explain", *question, check=False).returncode == code
    capture.signal(signal.SIGINT)
    assert capture.wait() == 0
    ended(appliance)
    assert shown(file) == []


def test_one_at_a_time(appliance: Appliance, tmp_path: Path) -> None:
    capture = begin(appliance, tmp_path / "first.pcapng")
    second = appliance.cli("capture", "--write", str(tmp_path / "second.pcapng"), check=False)
    assert second.returncode == 4
    assert "somebody else captures" in second.stderr
    assert not (tmp_path / "second.pcapng").exists()
    capture.signal(signal.SIGINT)
    assert capture.wait() == 0
    ended(appliance)


def test_full_disk_leaves_whole_packets(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    """By the largest file that this process may write, which is told as a full disk is."""
    file = tmp_path / "full.pcapng"
    words = ["prlimit", "--fsize=40000", *appliance.command, "capture", "--write", str(file)]
    with subprocess.Popen(
        appliance.host.enter(words),
        env={**os.environ, **appliance.env},
        stderr=subprocess.PIPE,
        text=True,
    ) as capture:
        wait_for(lambda: file.exists() and file.stat().st_size > 0, "the capture to begin")
        rig.client.call(download, "10.1.0.1", 8080)
        _, said = capture.communicate(timeout=60)
    assert capture.returncode == 1
    assert "File too large" in said
    assert len(shown(file)) > 1
    ended(appliance)


def test_killed_daemon_leaves_nothing_to_the_next(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    capture = begin(appliance, tmp_path / "some.pcapng")
    appliance.kill9()
    assert capture.wait() == 6
    appliance.start()
    assert not captures(appliance)
    assert rig.client.call(download, "10.1.0.1", 8080) == digest(SIZE)
    assert json.loads(appliance.cli("status", "--output", "json").stdout)["tier"] == "kernel"


def test_daemon_without_bpf_says_so(rig: Rig, tmp_path: Path) -> None:
    with Appliance(rig, name="sockets") as sockets:
        sockets.cli("init")
        sockets.start("--no-bpf")
        told = sockets.cli("capture", "--write", str(tmp_path / "none.pcapng"), check=False)
        assert told.returncode == 4
        assert "carries connections by sockets" in told.stderr
