"""The real rsyslog takes what we send, over UDP, TCP and TLS, and understands every part of it."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.model.collector import parse_syslog
from marchproxy.model.entities import ClusterHead
from marchproxy.telemetry.logs.exports import Exports, targets
from marchproxy.telemetry.logs.records import FlowRecord
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.proxy.peers import free_port
from tests.telemetry.logs.certificates import Authority
from tests.telemetry.logs.made import denied, ended, message

pytestmark = pytest.mark.requires(commands=["rsyslogd"])

HOSTILE = 'a"b\\c]d ü'
RULES = """
global(workDirectory="{folder}" net.enableDNS="off" defaultNetstreamDriverCAFile="{ca}"
       defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}"
       maxMessageSize="8k")
module(load="imudp")
module(load="imtcp" streamDriver.name="{driver}" streamDriver.mode="{mode}" streamDriver.authMode="anon")
module(load="mmpstrucdata")
template(name="all" type="list" option.jsonf="on") {{
    property(outname="pri" name="pri" format="jsonf")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="kind" name="msgid" format="jsonf")
    property(outname="raw" name="structured-data" format="jsonf")
    property(outname="data" name="$!rfc5424-sd" format="jsonf")
    property(outname="text" name="msg" format="jsonf")
}}
template(name="line" type="string" string="%$.line%\\n")
input(type="imudp" address="127.0.0.1" port="{port}")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="mmpstrucdata")
action(type="omfile" file="{out}" template="all" asyncWriting="off")
"""


@contextmanager
def rsyslog(folder: Path, port: int, *, tls: Authority | None = None) -> Iterator[Path]:
    """A server of its own on loopback, writing JSON lines to the file."""
    folder.mkdir(exist_ok=True)
    out = folder / "out.log"
    certificate, key = tls.files("127.0.0.1", "localhost") if tls else ("", "")
    rules = RULES.format(
        folder=folder,
        ca=tls.file if tls else "",
        certificate=certificate,
        key=key,
        driver="ossl" if tls else "ptcp",
        mode=1 if tls else 0,
        port=port,
        out=out,
    )
    if tls is None:
        head, _, rest = rules.partition(" defaultNetstreamDriverCAFile")
        rules = head + " maxMessageSize" + rest.partition("maxMessageSize")[2]
    config = folder / "rsyslog.conf"
    config.write_text(rules)
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            ["rsyslogd", "-n", "-f", config, "-i", folder / "pid"],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    try:
        yield out
    finally:
        process.terminate()
        process.wait(PATIENCE)


def lines(out: Path) -> list[dict[str, object]]:
    """Complete lines so far."""
    try:
        text = out.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_it_understands_every_part(transport: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca") if transport == "tls" else None
    port = free_port()

    @looped
    async def run() -> None:
        with rsyslog(tmp_path / "server", port, tls=authority) as out:
            exports = Exports("0.1.0")
            cluster = ClusterHead(
                name="default",
                syslog=parse_syslog(f"{transport}://127.0.0.1:{port}"),
                syslog_ca=authority.certificate if authority else "",
                log_netflow=True,
                log_debug=True,
            )
            exports.configure(targets("default", cluster, 32473, None))
            # UDP has nobody to ask: what comes before the server is lost.
            while not lines(out):
                exports.offer(message("hello"))
                await asyncio.sleep(0.05)
            sent: list[FlowRecord] = [
                ended(id=1, name=HOSTILE),
                ended(id=2, source=ip_address("fd01::2")),
                denied(),
            ]
            for record in sent:
                exports.offer(record)
            while len(found := [each for each in lines(out) if each["kind"] != "backend"]) < len(sent):
                await asyncio.sleep(0.01)
            await exports.close()
        first, second, third = found
        assert (first["pri"], first["app"], first["kind"]) == ("134", "marchproxy", "flow-end")
        assert first["time"] == "2027-01-15T08:00:00.250Z"
        data = _data(first)
        assert data["name"] == HOSTILE
        assert data["bytes_received"] == "30000"
        assert str(first["text"]).removeprefix("\ufeff").startswith("flow-end tcp 10.1.0.2:40001 to")
        assert _data(second)["source"] == "fd01::2"
        assert (third["pri"], third["kind"], _data(third)["reason"]) == ("133", "denied", "NO_MAPPING")

    run()


def test_a_server_that_restarts_misses_nothing_by_tcp(tmp_path: Path) -> None:
    port = free_port()

    @looped
    async def run() -> None:
        exports = Exports("0.1.0")
        cluster = ClusterHead(
            name="default", syslog=parse_syslog(f"tcp://127.0.0.1:{port}"), log_netflow=True
        )
        exports.configure(targets("default", cluster, 32473, None))
        number, seen = 0, set[int]()
        for folder in ("first", "second"):
            with rsyslog(tmp_path / folder, port) as out:
                for _ in range(200):
                    number += 1
                    exports.offer(ended(id=number))
                while number not in {_id(line) for line in lines(out)}:
                    await asyncio.sleep(0.01)
            # Nobody is there.
            for _ in range(200):
                number += 1
                exports.offer(ended(id=number))
            await asyncio.sleep(0.01)
            seen |= {_id(line) for line in lines(out)}
        with rsyslog(tmp_path / "third", port) as out:
            while number not in {_id(line) for line in lines(out)}:
                await asyncio.sleep(0.01)
            seen |= {_id(line) for line in lines(out)}
        assert seen == set(range(1, number + 1))
        # What the server has written is sent once we have looked whether its host acknowledged it.
        await until(lambda: exports.states()[0].sent == number, "what arrived to be settled")
        assert sum(exports.states()[0].lost.values()) == 0
        await exports.close()

    run()


def _data(line: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = json.loads(str(line["data"]))["flow@32473"]
    return found


def _id(line: dict[str, object]) -> int:
    return int(_data(line)["id"])
