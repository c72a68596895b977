"""pcapng: read by tshark, which knows the format better than we do, and by our own reader."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from marchproxy.dataplane.capture import pcapng
from marchproxy.dataplane.capture.packet import CaptureKind
from marchproxy.dataplane.capture.pcapng import Reader, Writer, dropped
from tests.dataplane.capture.invented import FORWARDED, NOON, REFUSED


def written() -> bytes:
    writer = Writer("marchproxy 1", "port=443", 2048)
    leaving = replace(FORWARDED, kind=CaptureKind.LEFT, interface="öffentlich")
    begin = writer.begin(["inside0", "outside0"])
    packets = [writer.packet(each) for each in (FORWARDED, leaving, REFUSED)]
    return b"".join([begin, *packets, writer.end(NOON, 17)])


@pytest.mark.requires(commands=["tshark"])
def test_another_program_reads_the_same(tmp_path: Path) -> None:
    file = tmp_path / "some.pcapng"
    file.write_bytes(written())
    names = ("frame.time_epoch", "frame.interface_name", "frame.cap_len", "frame.len", "frame.comment")
    fields = [word for name in (*names, "frame.packet_flags_direction") for word in ("-e", name)]
    shown = subprocess.run(
        ["tshark", "-r", str(file), "-T", "fields", *fields], capture_output=True, text=True, check=True
    )
    assert [line.split("\t") for line in shown.stdout.splitlines()] == [
        ["1800000000.123456789", "inside0", "61", "1514", FORWARDED.comment, "0x00000001"],
        [
            "1800000000.123456789",
            "öffentlich",
            "61",
            "1514",
            FORWARDED.comment.replace("came", "left"),
            "0x00000002",
        ],
        ["1800000000.123457789", "outside0", "60", "60", REFUSED.comment, "0x00000001"],
    ]
    raw = subprocess.run(
        ["tshark", "-r", str(file), "-x", "-c", "1"], capture_output=True, text=True, check=True
    ).stdout
    octets = bytes.fromhex(
        "".join(line[6:53].replace(" ", "") for line in raw.splitlines() if line[:4].isalnum())
    )
    assert octets == FORWARDED.data


@pytest.mark.requires(commands=["capinfos"])
def test_another_program_is_told_of_interfaces_and_application(tmp_path: Path) -> None:
    file = tmp_path / "some.pcapng"
    file.write_bytes(written())
    shown = subprocess.run(["capinfos", str(file)], capture_output=True, text=True, check=True).stdout
    assert "marchproxy 1" in shown
    assert "port=443" in shown
    assert "Number of interfaces in file: 3" in shown
    assert "Number of packets:   3" in shown


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_pieces_of_any_size_become_whole_blocks(size: int) -> None:
    data, reader = written(), Reader()
    found = [block for at in range(0, len(data), size) for block in reader.blocks(data[at : at + size])]
    assert b"".join(block for _, block in found) == data
    assert [kind for kind, _ in found].count(pcapng.PACKET) == 3
    assert dropped(found[-1][1]) == 17


def test_what_is_no_block_is_no_capture() -> None:
    with pytest.raises(ValueError, match="a block of 3 bytes"):
        list(Reader().blocks(b"\x01\x00\x00\x00\x03\x00\x00\x00 and more"))


def test_without_an_interface_nothing_can_be_missing() -> None:
    writer = Writer("marchproxy 1", "", 64)
    assert len(writer.begin([])) % 4 == 0
    assert writer.end(NOON, 1) == b""
