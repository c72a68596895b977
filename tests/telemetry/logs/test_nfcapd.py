"""A real IPFIX collector, nfdump's nfcapd (UDP only), understands our templates and records."""

import asyncio
import csv
import io
import subprocess
from pathlib import Path

import pytest

from marchproxy.model.collector import parse_ipfix
from marchproxy.model.entities import ClusterHead
from marchproxy.telemetry.logs.exports import Exports, targets
from marchproxy.telemetry.logs.records import Record
from tests.dataplane.loops import PATIENCE, looped
from tests.dataplane.proxy.peers import free_port
from tests.telemetry.logs.made import denied, ended, ended6

pytestmark = pytest.mark.requires(commands=["nfcapd", "nfdump"])

FORMAT = "fmt:%sa,%sp,%da,%dp,%pr,%pkt,%byt,%nda,%ndp"
FLOWS: list[Record] = [ended(), ended6(protocol="udp"), denied(), ended(name="ü" * 100)]


def stored(folder: Path) -> list[list[str]]:
    """What nfdump reads of what was stored."""
    done = subprocess.run(
        ["nfdump", "-q", "-N", "-R", folder, "-o", FORMAT], capture_output=True, text=True, check=False
    )
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(done.stdout)) if len(row) == 9]


def waiting(port: int) -> int:
    """Bytes that the collector has not read yet: a signal would make it forget them."""
    sockets = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[4].partition(":")[2], 16) for row in sockets if row[1].endswith(f":{port:04X}"))


def test_a_collector_stores_both_directions_and_denials(tmp_path: Path) -> None:
    folder, port = tmp_path / "flows", free_port()
    folder.mkdir()
    said = tmp_path / "said"

    @looped
    async def run() -> None:
        with said.open("w") as errors:
            process = subprocess.Popen(
                ["nfcapd", "-w", folder, "-b", "127.0.0.1", "-p", str(port), "-t", "3600"],
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            while "Startup" not in said.read_text():
                await asyncio.sleep(0.01)
            exports = Exports("0.1.0")
            cluster = ClusterHead(name="default", ipfix=parse_ipfix(f"udp://127.0.0.1:{port}"))
            exports.configure(targets("default", cluster, 32473, None))
            for record in FLOWS * 30:
                exports.offer(record)
            await exports.close()
            while "Observation domain" not in said.read_text() or waiting(port):
                await asyncio.sleep(0.01)
        finally:
            process.terminate()
            process.wait(PATIENCE)

    run()
    assert "Sequence Errors: 0, Bad Packets: 0" in said.read_text()
    rows = stored(folder)
    assert len(rows) == 30 * 7
    assert rows[:2] == [
        ["10.1.0.2", "40001", "10.1.0.1", "80", "6", "10", "1000", "10.2.0.3", "8080"],
        ["10.1.0.1", "80", "10.1.0.2", "40001", "6", "20", "30000", "0.0.0.0", "0"],
    ]
    # nfdump 1.7.1 shows translated addresses of IPv4 only.
    assert rows[2][:7] == ["fd01::2", "40001", "fd01::1", "80", "17", "10", "1000"]
    assert ["10.1.0.2", "40001", "10.1.0.1", "80", "6", "3", "0", "0.0.0.0", "0"] in rows
