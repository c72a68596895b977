"""Which sinks there are, and who gets which record."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marchproxy.model.collector import parse_ipfix, parse_syslog
from marchproxy.model.entities import ClusterHead
from marchproxy.model.reason import Tier
from marchproxy.telemetry.logs.exports import Exports, Target, targets
from marchproxy.telemetry.logs.records import Happening, LogClass
from tests.dataplane.loops import looped
from tests.telemetry.logs.made import BOTH, asked, denied, ended, message


class Listening:
    """A syslog server of few words."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.kinds: list[str] = []

    @property
    def address(self) -> str:
        return f"udp://127.0.0.1:{self.socket.getsockname()[1]}"

    def heard(self) -> list[str]:
        """The kinds of messages so far."""
        while True:
            try:
                self.kinds.append(self.socket.recv(4096).split()[5].decode())
            except BlockingIOError:
                return self.kinds

    def __enter__(self) -> "Listening":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def wanted(name: str = "default", **fields: Any) -> list[Target]:
    return targets(name, ClusterHead(name=name, **fields), 32473, None)


def test_a_cluster_that_asks_for_nothing_has_no_sinks() -> None:
    assert wanted() == []
    assert wanted(log_auth=True, log_netflow=True, log_debug=True) == []


def test_syslog_wants_a_class_and_the_others_have_flows_of_their_own() -> None:
    to = parse_syslog("udp://192.0.2.5:514")
    assert wanted(syslog=to) == []
    [one] = wanted(syslog=to, log_auth=True, log_debug=True)
    assert (one.kind, set(one.classes)) == ("syslog", {LogClass.AUTH, LogClass.DEBUG})
    ipfix, http = wanted(ipfix=parse_ipfix("udp://192.0.2.5:4739"), log_http="https://logs.example/")
    assert (ipfix.kind, set(ipfix.happenings)) == ("ipfix", {Happening.END, Happening.DENIED})
    assert (http.kind, set(http.classes)) == ("http", {LogClass.NETFLOW})


@looped
async def test_each_class_is_switched_by_itself_and_each_cluster_has_its_own() -> None:
    with Listening() as auth, Listening() as flows, Listening() as debug, Listening() as lab:
        exports = Exports("0.1.0")
        for server, switch in ((auth, "log_auth"), (flows, "log_netflow"), (debug, "log_debug")):
            exports.configure(
                [
                    *wanted("lab", syslog=parse_syslog(lab.address), log_netflow=True),
                    *wanted("default", syslog=parse_syslog(server.address), **dict.fromkeys([switch], True)),
                ]
            )
            exports.offer(ended())
            exports.offer(denied())
            exports.offer(denied(classes=BOTH, tier=Tier.SOCKETS))
            exports.offer(message())
            expected = {auth: ["denied"], flows: ["flow-end", "denied", "denied"], debug: ["backend"]}
            await until(lambda server=server, expected=expected: server.heard() == expected[server])  # type: ignore[misc]
        exports.offer(ended(cluster="lab"))
        await until(lambda: lab.heard() == ["flow-end"])
        await exports.close()
        assert flows.heard() == ["flow-end", "denied", "denied"]


@looped
async def test_a_sink_that_did_not_change_goes_on_and_one_that_goes_delivers_first() -> None:
    with Listening() as server:
        exports = Exports("0.1.0")
        kept = wanted(syslog=parse_syslog(server.address), log_netflow=True)
        exports.configure(kept)
        [sink] = exports._sinks.values()
        exports.configure(wanted(syslog=parse_syslog(server.address), log_netflow=True))
        assert list(exports._sinks.values()) == [sink]
        for _ in range(150):
            exports.offer(ended())
        exports.configure([])
        await exports.close()
        assert len(server.heard()) == 150


@looped
async def test_counts_never_go_back_when_a_sink_is_replaced() -> None:
    with Listening() as server:
        exports = Exports("0.1.0")
        for more in (False, True):
            to = parse_syslog(server.address)
            exports.configure(wanted(syslog=to, log_netflow=True, log_auth=more))
            exports.offer(ended())
            await until(lambda: exports.states()[0].waiting == 0)
        await until(lambda: not exports._closing and exports.states()[0].sent == 2)
        await exports.close()


@looped
async def test_what_does_not_arrive_is_a_problem_that_names_its_place() -> None:
    exports = Exports("0.1.0")
    exports.configure(wanted(syslog=parse_syslog("tcp://127.0.0.1:1"), log_netflow=True))
    exports.offer(ended())
    await until(exports.problems)
    assert exports.problems() == ["syslog of cluster default: tcp://127.0.0.1:1: Connection refused"]
    await exports.close()


@looped
async def test_the_path_of_a_log_platform_is_shown_nowhere() -> None:
    exports = Exports("0.1.0")
    exports.configure(wanted(log_http="https://logs.example/ingest/s3cret?key=s3cret"))
    assert exports.states()[0].target == "https://logs.example"
    await exports.close()


def test_a_token_is_in_no_text() -> None:
    [target] = targets("default", ClusterHead(name="default", log_http="https://x.example/"), 1, b"s3cret")
    assert "s3cret" not in repr(target)


@pytest.mark.parametrize("module", ["http.client", "marchproxy.telemetry.logs.channels"])
def test_who_exports_nothing_imports_nothing(module: str) -> None:
    program = f"import sys, marchproxy.telemetry.logs.exports; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@looped
async def test_requests_go_to_their_file_and_to_whoever_takes_the_class(tmp_path: Path) -> None:
    exports = Exports("0.1.0")
    before = exports.wants_requests
    with Listening() as server:
        head = ClusterHead(
            name="default", syslog=parse_syslog(server.address), log_access=True, access_log=True
        )
        made = targets("default", head, 32473, None, tmp_path)
        assert [each.kind for each in made] == ["syslog", "file"]
        assert made[0].happenings == made[1].happenings == frozenset()
        exports.configure(made)
        assert (before, exports.wants_requests) == (False, True)
        exports.offer(asked())
        exports.offer(ended())
        await until(lambda: server.heard() == ["request"])
        await exports.close()
    assert (tmp_path / "access-default.jsonl").read_text().count("\n") == 1
