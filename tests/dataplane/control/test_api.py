"""The routes of version 1, asked as a client would: over a Unix socket."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.agreement import KernelAnswer
from marchproxy.dataplane.capture import pcapng
from marchproxy.dataplane.control import api
from marchproxy.dataplane.control.api import ControlApi
from marchproxy.dataplane.control.server import Limits
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.outbox import QUEUE
from marchproxy.dataplane.records import BackendEvent
from marchproxy.model.change import Change, Kind
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.model.reason import Reason, Verdict
from tests.dataplane import facts
from tests.dataplane.capture.invented import FORWARDED
from tests.dataplane.control.clients import ask, connected, read_answer, read_chunks, serving
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule


@asynccontextmanager
async def talking(tmp_path: Path, *flows: Any) -> AsyncGenerator[tuple[Path, facts.StandIn]]:
    appliance = facts.StandIn(*flows)
    path = tmp_path / "s"
    async with serving(path, ControlApi(appliance).handle):
        yield path, appliance


@looped
async def test_status(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, _):
        answer = await ask(path, "GET", "/v1/status")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.document["revision"]["number"] == 3


@looped
async def test_whoever_asks_what_has_happened_is_told_the_newest(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        for count, target in enumerate(
            ("/v1/status", "/v1/flows?denied=1", "/v1/top?by=service", "/v1/logs"), 1
        ):
            assert (await ask(path, "GET", target)).status == 200
            assert appliance.settled == count
        await ask(path, "POST", "/v1/reload")
        assert appliance.settled == 4


@looped
async def test_capture_is_a_file_that_comes_bit_by_bit(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        appliance.feed = facts.StandInFeed(FORWARDED)
        answer = await ask(path, "GET", "/v1/capture?packets=1&port=443")
        assert answer.headers["content-type"] == "application/x-pcapng"
        kinds = [kind for kind, _ in pcapng.Reader().blocks(answer.body)]
        assert kinds == [pcapng.SECTION, pcapng.INTERFACE, pcapng.INTERFACE, pcapng.PACKET, pcapng.STATISTICS]
        assert b"packets=1&port=443" in answer.body
        assert appliance.feed.closed


@looped
async def test_capture_does_not_begin_for_who_asks_only_for_the_head(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (reader, writer):
        begun: list[object] = []
        appliance.capture = begun.append  # type: ignore[method-assign, assignment]
        writer.write(b"HEAD /v1/capture HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = await read_answer(reader, head_only=True)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-pcapng")
        assert await reader.read() == b""
        assert not begun


@looped
async def test_capture_that_there_is_no_room_for_ends_at_once(tmp_path: Path) -> None:
    appliance = facts.StandIn()
    limits = Limits(streams=0)
    async with serving(tmp_path / "s", ControlApi(appliance).handle, limits):
        answer = await ask(tmp_path / "s", "GET", "/v1/capture")
        assert (answer.status, answer.document["error"]["name"]) == (503, "TooManyConnections")
        assert appliance.feed.closed


@looped
async def test_capture_ends_with_its_reader(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (_, writer):
        writer.write(b"GET /v1/capture HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.05)
        assert not appliance.feed.closed
        writer.close()
        await until(lambda: appliance.feed.closed)


@looped
async def test_capture_ends_with_a_reader_that_never_read(tmp_path: Path) -> None:
    """To the daemon that is a reset, and no end of the stream."""
    async with talking(tmp_path) as (path, appliance):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /v1/capture HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0.2)
            assert not appliance.feed.closed
        await until(lambda: appliance.feed.closed)


@looped
async def test_capture_that_is_refused_has_its_own_error(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        appliance.refusal = Conflict("somebody else captures")
        answer = await ask(path, "GET", "/v1/capture")
        assert (answer.status, answer.document["error"]["name"]) == (409, "Conflict")
        assert (await ask(path, "GET", "/v1/capture?rate=0")).status == 400
        assert (await ask(path, "GET", "/v1/capture?colour=red")).status == 400


@looped
async def test_flows_are_filtered_limited_and_named(tmp_path: Path) -> None:
    flows = [facts.flow(facts.decision(f"10.0.{number}.1")) for number in range(5)]
    async with talking(tmp_path, *flows) as (path, appliance):
        served = plan(
            listener(443, rule(backend(8443, "10.9.0.1"), sources=("net",))),
            sources={"net": "10.0.3.0/24"},
        )
        appliance.events.names = ServiceNames(served)
        rows = (await ask(path, "GET", "/v1/flows")).document
        assert [row["source"] for row in rows] == [f"10.0.{number}.1" for number in range(5)]
        assert {row["destination_service"] for row in rows} == {"web"}
        assert len((await ask(path, "GET", "/v1/flows?limit=2")).document) == 2
        assert [(each.first, each.count) for each in appliance.questions] == [(0, 1000), (0, 2)]
        (row,) = (await ask(path, "GET", "/v1/flows?service=net")).document
        assert (row["source"], row["source_service"]) == ("10.0.3.1", "net")
        assert (await ask(path, "GET", "/v1/flows?port=80")).document == []


@looped
async def test_flows_come_in_pages_in_the_order_asked_for(tmp_path: Path) -> None:
    flows = [facts.flow(facts.decision(f"10.0.{number}.1")) for number in (3, 1, 4, 0, 2)]
    async with talking(tmp_path, *flows) as (path, _):
        answer = await ask(path, "GET", "/v1/flows?sort=-source&offset=1&limit=2&port=443")
        assert [row["source"] for row in answer.document] == ["10.0.3.1", "10.0.2.1"]
        assert answer.headers["x-marchproxy-total"] == "5"
        answer = await ask(path, "GET", "/v1/flows?text=10.0.4&limit=3")
        assert [row["source"] for row in answer.document] == ["10.0.4.1"]
        assert answer.headers["x-marchproxy-total"] == "1"
        assert (await ask(path, "GET", "/v1/flows?sort=size")).status == 400
        assert (await ask(path, "GET", "/v1/flows?denied=1&sort=bytes")).status == 400


@looped
async def test_an_answer_that_is_cut_short_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_ROWS", 3)
    flows = [facts.flow(facts.decision(f"10.0.{number}.1")) for number in range(5)]
    async with talking(tmp_path, *flows) as (path, _):
        for target, rows, truncated in (
            ("/v1/flows", 3, True),
            ("/v1/flows?offset=1", 3, True),
            ("/v1/flows?offset=2", 3, False),
            ("/v1/flows?limit=3", 3, False),
        ):
            answer = await ask(path, "GET", target)
            assert len(answer.document) == rows
            assert ("x-marchproxy-truncated" in answer.headers) is truncated


@looped
async def test_many_rows_arrive_as_one_array(tmp_path: Path) -> None:
    async with talking(tmp_path, *[facts.flow()] * 2500) as (path, _):
        answer = await ask(path, "GET", "/v1/flows?limit=2401")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert len(answer.document) == 2401


@looped
async def test_refusals_come_newest_first(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        for number in range(3):
            appliance.events.publish(facts.denied(f"10.0.0.{number}"))
        appliance.events.publish(facts.denied("10.0.0.9", Reason.DENY_MAPPING))
        rows = (await ask(path, "GET", "/v1/flows?denied=1")).document
        assert [row["source"] for row in rows] == ["10.0.0.9", "10.0.0.2", "10.0.0.1", "10.0.0.0"]
        rows = (await ask(path, "GET", "/v1/flows?denied=1&reason=NO_MAPPING&limit=1")).document
        assert [row["source"] for row in rows] == ["10.0.0.2"]


@looped
async def test_events_stream_as_lines_from_the_moment_the_stream_opens(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (reader, writer):
        writer.write(b"GET /v1/events?kind=denied HTTP/1.1\r\n\r\n")
        assert (await read_answer(reader, head_only=True)).status == 200
        chunks = read_chunks(reader)
        assert await anext(chunks) == b"\n"
        appliance.events.publish(facts.started())
        appliance.events.publish(facts.denied())
        line = json.loads(await anext(chunks))
        assert (line["kind"], line["reason"]) == ("denied", "NO_MAPPING")
        assert len(appliance.events._subscriptions) == 1
        writer.close()
        await until(lambda: not appliance.events._subscriptions)


@looped
async def test_events_are_filtered_as_flows_are(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (reader, writer):
        writer.write(b"GET /v1/events?source=10.0.0.0/24&reason=NO_MAPPING HTTP/1.1\r\n\r\n")
        assert (await read_answer(reader, head_only=True)).status == 200
        chunks = read_chunks(reader)
        assert await anext(chunks) == b"\n"
        appliance.events.publish(facts.started())
        appliance.events.publish(facts.denied("10.1.0.1"))
        appliance.events.tell(BackendEvent(facts.backend_state()))
        appliance.events.publish(facts.denied("10.0.0.2"))
        (line,) = (await anext(chunks)).splitlines()
        assert json.loads(line)["source"] == "10.0.0.2"


@looped
async def test_who_names_no_kinds_is_told_of_the_first_ones_only(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        for target, kinds in (
            ("/v1/events", ["backend"]),
            ("/v1/events?kind=all", ["problem", "reload", "interface", "backend"]),
            ("/v1/events?kind=problem,interface", ["problem", "interface"]),
        ):
            async with connected(path) as (reader, writer):
                writer.write(f"GET {target} HTTP/1.1\r\n\r\n".encode())
                await read_answer(reader, head_only=True)
                chunks = read_chunks(reader)
                assert await anext(chunks) == b"\n"
                for event in facts.own_events():
                    appliance.events.tell(event)
                assert [json.loads(line)["kind"] for line in (await anext(chunks)).splitlines()] == kinds


@looped
async def test_a_slow_subscriber_is_told_how_much_it_missed(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (reader, writer):
        writer.write(b"GET /v1/events HTTP/1.1\r\n\r\n")
        await read_answer(reader, head_only=True)
        chunks = read_chunks(reader)
        assert await anext(chunks) == b"\n"
        for _ in range(QUEUE + 5):
            appliance.events.publish(facts.started())
        lines = (await anext(chunks)).splitlines()
        assert len(lines) == QUEUE + 1
        assert json.loads(lines[-1]) == {"kind": "lost", "count": 5}
        appliance.events.publish(facts.denied())
        assert json.loads(await anext(chunks))["kind"] == "denied"


@looped
async def test_reload_tells_what_is_carried_out_now(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, _):
        bodies: tuple[object, ...] = (None, {})
        for body in bodies:
            assert (await ask(path, "POST", "/v1/reload", body)).document == {
                "revision": 4,
                "sha256": "cd" * 32,
                "applied_ms": 2.1,
                "findings": [
                    {
                        "severity": "warning",
                        "subject": "mapping m",
                        "message": "never matches",
                        "hint": "remove it",
                    }
                ],
            }


@pytest.mark.parametrize("error", [MarchproxyError("no", hint="why"), Conflict("no", hint="why")])
@looped
async def test_a_refused_reload_is_a_conflict(tmp_path: Path, error: MarchproxyError) -> None:
    async with talking(tmp_path) as (path, appliance):
        appliance.refusal = error
        answer = await ask(path, "POST", "/v1/reload", {})
        assert answer.status == 409
        assert answer.document["error"] == {"name": type(error).__name__, "message": "no", "hint": "why"}


QUESTION = {"source": "10.0.0.5", "destination": "127.0.0.1", "port": 443, "protocol": "tcp"}


@looped
async def test_explain_answers_from_the_plan_in_force(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        served = plan(
            listener(443, rule(backend(8443), sources=("net",)), address="0.0.0.0"),
            sources={"net": "10.0.0.0/8"},
        )
        appliance.events.names = ServiceNames(served)
        told = (await ask(path, "POST", "/v1/explain", QUESTION)).document
        assert (told["verdict"], told["reason"], told["mapping"]) == ("allow", "FORWARDED", "m")
        assert (told["source_service"], told["destination_service"]) == ("net", "web")
        assert told["backend"] == "127.0.0.1:8443"
        assert told["backends"] == [{"address": "127.0.0.1", "port": 8443, "service": "web", "weight": 1}]
        assert (told["tier"], told["revision"]) == ("kernel", 3)
        assert told["why"]
        stranger = (await ask(path, "POST", "/v1/explain", {**QUESTION, "source": "192.0.2.1"})).document
        assert (stranger["verdict"], stranger["reason"], stranger["backend"]) == ("deny", "NO_MAPPING", "")
        host = (await ask(path, "POST", "/v1/explain", {**QUESTION, "port": 22})).document
        assert (host["verdict"], host["reason"]) == ("host", "PASSED_TO_HOST")


@looped
async def test_explain_says_what_the_kernel_does_and_whether_it_is_the_same(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        served = plan(listener(443, rule(backend(8443)), address="0.0.0.0"))
        appliance.events.names = ServiceNames(served)
        told = (await ask(path, "POST", "/v1/explain", QUESTION)).document
        assert (told["kernel"], told["kernel_note"], told["agrees"]) == (None, "there is none", None)
        place = Endpoint(ip_address("127.0.0.1"), 8443)
        appliance.kernel = KernelAnswer(Verdict.ALLOW, Reason.FORWARDED, "m", "eth0", place, place)
        told = (await ask(path, "POST", "/v1/explain", QUESTION)).document
        assert told["agrees"] is True
        assert told["kernel"] == {
            "verdict": "allow",
            "reason": "FORWARDED",
            "mapping": "m",
            "backend": "127.0.0.1:8443",
            "seen_as": "127.0.0.1:8443",
            "interface": "eth0",
        }
        appliance.kernel = KernelAnswer(Verdict.DENY, Reason.NO_MAPPING, "", "eth0")
        told = (await ask(path, "POST", "/v1/explain", QUESTION)).document
        assert (told["agrees"], told["verdict"], told["kernel"]["backend"]) == (False, "allow", "")


@looped
async def test_explain_judges_a_token(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        wants = rule(backend(8443), reason=Reason.AUTH_MISSING)
        wants = replace(wants, credentials=("web",))
        appliance.events.names = ServiceNames(plan(listener(443, wants, address="0.0.0.0")))
        ends = datetime(2030, 1, 1, tzinfo=UTC)
        appliance.tokens = {"right": Verified("web", "1", ends), "other": Verified("mail", "2", None)}

        async def told(token: object) -> Any:
            return (await ask(path, "POST", "/v1/explain", {**QUESTION, "token": token})).document

        right = await told("right")
        assert right["token"] == {
            "service": "web",
            "reason": "",
            "expires": "2030-01-01T00:00:00.000Z",
            "opens": True,
        }
        assert (right["verdict"], right["reason"], right["backend"]) == (
            "allow",
            "FORWARDED",
            "127.0.0.1:8443",
        )
        other = await told("other")
        assert (other["verdict"], other["reason"], other["token"]["opens"]) == ("deny", "AUTH_INVALID", False)
        assert other["why"][-1] == "the token is one of mail, which does not open it"
        assert (await told("nonsense"))["token"]["reason"] == "AUTH_INVALID"
        for what in ("", None, 5, "x" * 20_000):
            error = await told(what)
            assert error["error"]["message"] == "token: '…' is not valid"
        appliance.events.names = ServiceNames(plan(listener(443, rule(backend(8443)), address="0.0.0.0")))
        assert (await told("other"))["why"][-1].endswith("does not open it, and none is asked for")


CHANGE = {"kind": "mapping", "cluster": "default", "name": "m", "before": None, "after": {"name": "m"}}


@looped
async def test_preview(tmp_path: Path) -> None:
    async with talking(tmp_path, facts.flow()) as (path, appliance):
        proposal = {"sha256": "ab", "changes": [CHANGE | {"action": "add"}, CHANGE]}
        answer = await ask(path, "POST", "/v1/preview", proposal)
        assert answer.status == 200
        assert {key: answer.document[key] for key in ("cut", "looked_at", "complete", "unresolved")} == {
            "cut": 1,
            "looked_at": 1,
            "complete": True,
            "unresolved": ["db.example.com"],
        }
        (row,) = answer.document["flows"]
        assert (row["source"], row["cut_reason"], row["cut_by"]) == ("10.0.0.1", "NO_MAPPING", "")
        assert appliance.proposed == ("ab", [Change(Kind.MAPPING, "default", "m", None, {"name": "m"})] * 2)
        appliance.refusal = Conflict("the daemon carries out revision 3")
        assert (await ask(path, "POST", "/v1/preview", proposal)).status == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sha256": "ab"},
        {"sha256": "ab", "changes": {}},
        {"sha256": "ab", "changes": [7]},
        {"sha256": "ab", "changes": [CHANGE | {"kind": "thing"}]},
        {"sha256": "ab", "changes": [CHANGE | {"kind": []}]},
        {"sha256": "ab", "changes": [CHANGE | {"after": "m"}]},
        {"sha256": "ab", "changes": [{"kind": "mapping"}]},
        {"sha256": "ab", "changes": [CHANGE | {"more": 1}]},
    ],
)
@looped
async def test_proposals_that_cannot_be_meant(tmp_path: Path, body: object) -> None:
    async with talking(tmp_path) as (path, appliance):
        answer = await ask(path, "POST", "/v1/preview", body)
        assert (answer.status, answer.document["error"]["name"]) == (400, "InvalidValue")
        assert appliance.proposed is None


@looped
async def test_what_was_learned_and_forgotten(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        assert (await ask(path, "GET", "/v1/learned")).document == {"missed": 0, "observations": []}
        appliance.learning.take(facts.decision(reason=Reason.NO_MAPPING, mapping=""))
        (row,) = (await ask(path, "GET", "/v1/learned")).document["observations"]
        assert (row["source"], row["destination"], row["port"]) == ("10.0.0.1/32", "10.0.0.9", 443)
        assert (await ask(path, "DELETE", "/v1/learned")).document == {"forgotten": 1}
        assert (await ask(path, "POST", "/v1/learned", {})).status == 405


@looped
async def test_an_echo_request_has_no_port(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, _):
        asked = {name: value for name, value in QUESTION.items() if name != "port"}
        answer = await ask(path, "POST", "/v1/explain", {**asked, "protocol": "icmp"})
        assert (answer.status, answer.document["verdict"]) == (200, "host")
        assert (await ask(path, "POST", "/v1/explain", asked)).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {**QUESTION, "source": "web"},
        {**QUESTION, "source": None},
        {**QUESTION, "destination": "10.0.0.0/8"},
        {**QUESTION, "port": 0},
        {**QUESTION, "port": True},
        {**QUESTION, "port": 1.5},
        {**QUESTION, "protocol": "icmp"},
        {**QUESTION, "protocol": ["tcp"]},
        {**QUESTION, "source": "fd00::1"},
        {**QUESTION, "port": None},
        {**QUESTION, "more": 1},
    ],
)
@looped
async def test_a_question_that_cannot_be_meant_is_refused(tmp_path: Path, body: object) -> None:
    async with talking(tmp_path) as (path, _):
        answer = await ask(path, "POST", "/v1/explain", body)
        assert (answer.status, answer.document["error"]["name"]) == (400, "InvalidValue")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/status", 404),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/reload", 405),
        ("DELETE", "/v1/flows", 405),
        ("GET", "/v1/status?x=1", 400),
        ("GET", "/v1/flows?limit=0", 400),
        ("GET", "/v1/flows?denied=maybe", 400),
        ("GET", "/v1/flows?colour=red", 400),
        ("GET", "/v1/events?kind=nothing", 400),
        ("GET", "/v1/events?limit=1", 400),
    ],
)
@looped
async def test_a_request_that_is_not_understood_is_refused(
    tmp_path: Path, method: str, target: str, status: int
) -> None:
    async with talking(tmp_path) as (path, _):
        answer = await ask(path, method, target)
        assert answer.status == status
        assert set(answer.document["error"]) == {"name", "message", "hint"}
        assert status != 405 or answer.headers["allow"] in ("GET", "POST")


@looped
async def test_requests_are_served_while_streams_are_open(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, _), connected(path) as (reader, writer):
        writer.write(b"GET /v1/events HTTP/1.1\r\n\r\n")
        await read_answer(reader, head_only=True)
        answers = await asyncio.gather(*(ask(path, "GET", "/v1/status") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}


@looped
async def test_flows_are_cut_by_id_and_tunnels_by_token(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        answer = await ask(path, "POST", "/v1/flows/cut", {"ids": [7, 8], "tokens": ["3"]})
        assert answer.document == {"cut": 3, "unknown": [8]}
        assert appliance.ended == (frozenset({7, 8}), frozenset({"3"}))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": "7"},
        {"ids": [0]},
        {"ids": [True]},
        {"ids": ["7"]},
        {"tokens": [7]},
        {"id": 7},
    ],
)
@looped
async def test_what_is_to_be_cut_must_be_said(tmp_path: Path, body: dict[str, Any]) -> None:
    async with talking(tmp_path) as (path, appliance):
        assert (await ask(path, "POST", "/v1/flows/cut", body)).status == 400
        assert appliance.ended == (frozenset(), frozenset())
