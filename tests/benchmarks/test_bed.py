"""The bed: what counts as reached."""

from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.bed import ANSWER, NGINX, Bed


def test_the_server_gives_the_answer() -> None:
    assert f'return 200 "{ANSWER}";' in NGINX
    assert len(ANSWER) == 64


@pytest.mark.parametrize(
    ("body", "reached"), [(ANSWER.encode(), True), (b"404 page not found\n", False), (b"", False)]
)
def test_only_the_server_s_own_answer_says_that_it_is_reached(body: bytes, reached: bool) -> None:
    client = SimpleNamespace(call=lambda *_: body)
    bed = cast(Bed, SimpleNamespace(rig=SimpleNamespace(client=client)))
    assert Bed.answers(bed, "10.1.0.1") is reached


def test_who_is_not_there_is_not_reached() -> None:
    def refused(*_: object) -> bytes:
        raise ConnectionRefusedError

    bed = cast(Bed, SimpleNamespace(rig=SimpleNamespace(client=SimpleNamespace(call=refused))))
    assert not Bed.answers(bed, "10.1.0.1")
