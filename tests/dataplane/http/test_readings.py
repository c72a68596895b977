"""Whatever way bytes come in, and whatever is wrong with them: one reading, or none."""

import asyncio
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.dataplane.http.bodies import Dechunked, UntilClose
from marchproxy.dataplane.http.fields import about_client
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.requests import body_of, read_request, write_request
from marchproxy.dataplane.http.responses import read_response, write_response
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import head_length, parse_head
from marchproxy.model.endpoint import Endpoint
from marchproxy.policy.plan import Backend
from tests.dataplane.http.site import answer, get, response, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial

QUIETLY = settings(max_examples=150, database=None)
REQUESTS = (
    get("/here/1"),
    b"POST /here/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n",
    b"PUT /here/3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n20\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n.\r\n0\r\nX-Sum: 1\r\n\r\n",
    get("/other"),
    b"\r\nDELETE /here/4 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD /here/5 HTTP/1.1\r\nHost: h\r\n\r\n",
)
HEADS = (
    *(each[: each.index(b"\r\n\r\n", 4) + 4].lstrip() for each in REQUESTS),
    b"GET http://h.example:8080/a;b=c/%2e?d HTTP/1.1\r\nHost: h.example:8080\r\nConnection: x, close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
)
PIECES = st.sampled_from(
    [
        *(
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\0",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"\x0b",
            b"\x80",
            b"\xff",
        ),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n"),
        *(b"Content_Length: 5\r\n", b"X-Forwarded-For: 1\r\n", b"Host: i\r\n", b" HTTP/1.1\r\n"),
        *(b"%2e%2e/", b"../", b"\\", b'"', b"@", b"\x80", b"\x85", b"\xff"),
    ]
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same in pieces."""
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def mutated(head: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, drop, piece in edits:
        at = place % (len(head) + 1)
        head = head[:at] + piece + head[at + drop :]
    return head


EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), PIECES), min_size=1, max_size=3)


@QUIETLY
@given(st.sampled_from(HEADS), EDITS)
def test_a_head_that_is_taken_is_written_so_that_nobody_reads_it_otherwise(
    head: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    raw = bytearray(mutated(head, edits))
    try:
        length = head_length(raw, 0)
        if length is None:
            return
        request = read_request(bytes(raw[:length]))
    except Unfit:
        return
    about = about_client("192.0.2.1", "http", request.authority, request.version)
    written = write_request(request, about, Endpoint(ip_address("10.2.0.2"), 80))
    assert written.count(b"\r\n\r\n") == 1
    assert written.endswith(b"\r\n\r\n")
    assert written.count(b"\n") == written.count(b"\r") == written.count(b"\r\n")
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", written)
    again = parse_head(written)
    names = [name for name, _ in again.fields]
    for single in ("host", "x-forwarded-for", "forwarded", "content-length", "transfer-encoding"):
        assert names.count(single) <= 1
        assert "-" not in single or single.replace("-", "_") not in names
    assert not {"content-length", "transfer-encoding"} <= set(names)
    assert again.get("x-forwarded-for") == "192.0.2.1"
    assert (again.method, again.target) == (request.method, request.target)
    if request.length:
        assert again.get("content-length") == str(request.length)
    # Whoever reads what we have written comes to the same.
    second = read_request(written)
    host = request.host or "10.2.0.2"
    assert (second.host, second.path, second.length) == (host, request.path, request.length)
    assert second.websocket == request.websocket


@QUIETLY
@given(EDITS, st.sampled_from(["GET", "HEAD"]))
def test_so_is_the_head_of_an_answer(edits: list[tuple[int, int, bytes]], method: str) -> None:
    head = mutated(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\n", edits)
    end = head.find(b"\r\n\r\n") + 4
    try:
        read, _ = read_response(head[:end], method)
    except Unfit:
        return
    for version in ("1.0", "1.1"):
        written = write_response(read, version, keeps=True)
        assert written.count(b"\r\n\r\n") == 1
        assert written.count(b"\n") == written.count(b"\r") == written.count(b"\r\n")
        lowered = written.lower()
        assert lowered.count(b"\r\ncontent-length:") + lowered.count(b"\r\ntransfer-encoding:") <= 1


@looped
async def test_pipelined_requests_say_the_same_in_any_pieces() -> None:
    async with served(answer()) as (at, backend):
        whole = b"".join(REQUESTS)
        expected: list[object] = []
        cuts = [[], list(range(len(whole))), *([step * n for n in range(1, 60)] for step in (7, 31, 59, 97))]
        for places in cuts:
            backend.heads.clear()
            backend.bodies.clear()
            got = []
            async with dial(at.port) as (reader, writer):
                for piece in split(whole, places):
                    writer.write(piece)
                    await asyncio.sleep(0)
                for each in REQUESTS:
                    head, body = await response(reader, each.split()[0].decode())
                    got.append((head, body))
            heads = [(_without_id(head), body) for head, body in got]
            said = [heads, [_without_id(head) for head in backend.heads], list(backend.bodies)]
            expected = expected or said
            assert said == expected
        assert len(backend.heads) == 5
        assert not any("evil" in head for head in backend.heads)


@dataclass
class Heard:
    """Keeps what an answer said, and the connection if it is free."""

    statuses: list[int] = field(default_factory=list)
    body: bytes = b""
    ended: str = ""
    kept: int = 0

    def informed(self, response: Response) -> None:
        self.statuses.append(response.status)

    def answered(self, response: Response) -> None:
        self.statuses.append(response.status)

    def received(self, data: memoryview | bytes) -> None:
        self.body += data

    def flush(self) -> None:
        pass

    def complete(self, trailers: Fields) -> None:
        self.ended = f"complete {trailers}"

    def failed(self, reason: object, detail: str) -> None:
        self.ended = f"failed {detail}"

    def upstream_full(self) -> None:
        pass

    def upstream_ready(self) -> None:
        pass

    def keep(self, upstream: Upstream) -> None:
        self.kept += 1

    def gone(self, upstream: Upstream) -> None:
        pass


class Silent(asyncio.Transport):
    """Takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    close = abort

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def resume_reading(self) -> None:
        pass


ANSWERS = (
    answer(b"hello"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"x" * 40, "200 OK", "Connection: close"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;q\r\n\r\n\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    answer() + answer(b"poison"),
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
)


def _without_id(head: str) -> str:
    return re.sub(r"x-request-id: [0-9a-f]{32}\r\n", "", head)


def heard(pieces: list[bytes]) -> Heard:
    told = Heard()
    upstream = Upstream(told, Backend(ip_address("192.0.2.9"), 80, "web"), secure=False)
    upstream.connection_made(Silent())
    upstream.ask(told, Request("GET", "h", "h", "/", "/", (), 0, "1.1", encoded=b"x"), "")
    upstream.finish(())
    for piece in pieces:
        upstream.data_received(piece)
    upstream.connection_lost(None)
    return told


@QUIETLY
@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 500), max_size=12))
def test_answers_say_the_same_in_any_pieces(raw: bytes, cuts: list[int]) -> None:
    whole, pieces = heard([raw]), heard(split(raw, cuts))
    assert (pieces.statuses, pieces.body, pieces.ended) == (whole.statuses, whole.body, whole.ended)
    assert whole.ended
    # What was too much is seen at once, or ends the connection when it comes.
    assert pieces.kept >= whole.kept


@QUIETLY
@given(st.binary(max_size=60), st.lists(st.integers(0, 80), max_size=5))
def test_bodies_of_noise_are_read_or_refused(noise: bytes, cuts: list[int]) -> None:
    for begin in (b"", b"5\r\n", b"1\r\na\r\n0\r\nX: "):
        body, got = Dechunked(), bytearray()
        try:
            for piece in split(begin + noise, cuts) if begin + noise else []:
                if not body.done:
                    body.feed(piece, got.extend)
        except Unfit:
            continue
        assert len(got) <= len(begin + noise)
    assert not UntilClose().done
    assert body_of(read_request(HEADS[0])).done
