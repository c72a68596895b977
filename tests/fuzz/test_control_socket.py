"""Whatever is written to the control socket, the next client is served."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.control.http1 import Request, Response
from tests.dataplane.control.clients import ask, connected, serving
from tests.dataplane.loops import looped
from tests.examples import examples
from tests.fuzz.corpus import entries
from tests.fuzz.edits import inputs

SEEDS = [data for _, data in entries("control")]
PATIENCE = 30.0
"""Seconds that an answer may take on a machine that has other things to do."""


async def reflect(request: Request) -> Response:
    return Response(f"{request.method} {request.path} {len(request.body)}".encode())


@looped
async def served(written: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="mp-") as folder:
        path = Path(folder) / "s"
        async with serving(path, reflect):
            for data in written:
                async with connected(path) as (reader, writer):
                    writer.write(data)
                    writer.write_eof()
                    said = await asyncio.wait_for(reader.read(), PATIENCE)
                assert said == b"" or said.startswith(b"HTTP/1.1 "), said
            answer = await asyncio.wait_for(ask(path, "GET", "/still"), PATIENCE)
            assert (answer.status, answer.body) == (200, b"GET /still 0")


@examples(25)
@given(st.lists(inputs(SEEDS), min_size=1, max_size=8))
def test_the_next_client_is_served(written: list[bytes]) -> None:
    served(written)
