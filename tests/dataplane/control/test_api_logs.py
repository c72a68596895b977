"""GET /v1/logs, asked as a client would."""

import json
from pathlib import Path

import pytest

from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.outbox import QUEUE
from tests.dataplane import facts
from tests.dataplane.control.clients import ask, connected, read_answer, read_chunks
from tests.dataplane.control.test_api import talking
from tests.dataplane.loops import looped, until


def said(message: str, level: str = "info") -> Said:
    return Said(facts.NOON, level, "marchproxy.x", message, flow=7)


@looped
async def test_logs_are_the_last_records_the_oldest_first(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance):
        for word in ("a", "b", "Zebra"):
            appliance.logs.add(said(word, "warning" if word == "b" else "info"))
        answer = await ask(path, "GET", "/v1/logs?limit=2")
        assert [each["message"] for each in answer.document] == ["b", "Zebra"]
        assert answer.headers["x-marchproxy-total"] == "3"
        assert answer.document[0] == {
            "number": 2,
            "time": "2027-01-15T08:00:00.250Z",
            "level": "warning",
            "process": "daemon",
            "logger": "marchproxy.x",
            "flow": 7,
            "message": "b",
            "exception": "",
        }
        answer = await ask(path, "GET", "/v1/logs?level=warning")
        assert [each["message"] for each in answer.document] == ["b"]
        answer = await ask(path, "GET", "/v1/logs?text=zEB")
        assert [each["message"] for each in answer.document] == ["Zebra"]


@pytest.mark.parametrize("query", ["level=loud", "limit=0", "follow=yes", "source=10.0.0.1"])
def test_logs_are_asked_for_as_they_can_be(tmp_path: Path, query: str) -> None:
    @looped
    async def wrongly() -> None:
        async with talking(tmp_path) as (path, _):
            answer = await ask(path, "GET", f"/v1/logs?{query}")
            assert (answer.status, answer.document["error"]["name"]) == (400, "InvalidValue")

    wrongly()


@looped
async def test_logs_are_followed_from_what_there_was(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (reader, writer):
        appliance.logs.add(said("before"))
        writer.write(b"GET /v1/logs?follow=1&limit=5 HTTP/1.1\r\n\r\n")
        head = await read_answer(reader, head_only=True)
        assert head.headers["content-type"] == "application/x-ndjson"
        chunks = read_chunks(reader)
        first = json.loads(await anext(chunks))
        assert (first["kind"], first["message"]) == ("log", "before")
        for number in range(QUEUE + 2):
            appliance.logs.add(said(str(number)))
        lines = [json.loads(line) for line in (await anext(chunks)).splitlines()]
        assert [each["message"] for each in lines[:-1]] == [str(number) for number in range(QUEUE)]
        assert lines[-1] == {"kind": "lost", "count": 2}
        writer.close()
        await until(lambda: not appliance.logs._followers)


@looped
async def test_a_follower_of_logs_that_are_not_there_yet_knows_that_it_follows(tmp_path: Path) -> None:
    async with talking(tmp_path) as (path, appliance), connected(path) as (reader, writer):
        writer.write(b"GET /v1/logs?follow=1&level=error HTTP/1.1\r\n\r\n")
        await read_answer(reader, head_only=True)
        chunks = read_chunks(reader)
        assert await anext(chunks) == b"\n"
        appliance.logs.add(said("no"))
        appliance.logs.add(said("yes", "error"))
        assert json.loads(await anext(chunks))["message"] == "yes"
