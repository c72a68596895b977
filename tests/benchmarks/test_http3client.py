"""The client of HTTP/3: every answer is looked at, and connections are kept.

libcurl is a stand-in: the real one is not among what tests need. `test_http3` asks by another client.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from benchmarks.bed import ANSWER

MODULE = "benchmarks.http3client"
RIGHT = (200, ANSWER.encode(), 0)
NEW = (200, ANSWER.encode(), 1)
"""The same by a new connection."""
STOPS = "QUIC connection has been shut down"


class Libcurl(ModuleType):
    """Answers all that is asked at each look, each of which takes a second."""

    def __init__(self, answers: list[tuple[int, bytes, int] | str]) -> None:
        """`answers`: status, body and new connections; or what failed. After the last all are right."""
        super().__init__("pycurl")
        self.answers = answers
        self.clock = 0.0
        self.made: list[Request] = []
        self.asked: list[Request] = []
        self.options: dict[str, Any] = {}
        self.slow = 0
        """Looks at which nothing is answered."""
        self.waited: list[float] = []

    def __getattr__(self, name: str) -> str:
        """Constants are their names."""
        return name

    def Curl(self) -> "Request":
        self.made.append(Request())
        return self.made[-1]

    def CurlMulti(self) -> "Libcurl":
        return self

    def setopt(self, name: str, value: Any) -> None:
        self.options[name] = value

    def add_handle(self, request: "Request") -> None:
        assert request not in self.asked
        self.asked.append(request)

    def remove_handle(self, request: "Request") -> None:
        self.asked.remove(request)

    def perform(self) -> None:
        self.clock += 1

    def info_read(self) -> tuple[int, list["Request"], list[tuple["Request", int, str]]]:
        if self.slow:
            self.slow -= 1
            return 0, [], []
        answered: list[Request] = []
        failed = []
        for request in self.asked:
            answer = self.answers.pop(0) if self.answers else RIGHT
            if isinstance(answer, str):
                failed.append((request, 95, answer))
            else:
                request.answer(*answer)
                answered.append(request)
        return 0, answered, failed

    def timeout(self) -> int:
        return 20

    def select(self, seconds: float) -> None:
        self.waited.append(seconds)


class Request:
    """One of libcurl."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.found: dict[str, int] = {}

    def setopt(self, name: str, value: Any) -> None:
        self.options[name] = value

    def answer(self, status: int, body: bytes, connections: int) -> None:
        self.found = {"RESPONSE_CODE": status, "NUM_CONNECTS": connections}
        self.options["WRITEFUNCTION"](body)

    def getinfo(self, name: str) -> int:
        return self.found[name]


type Made = Callable[..., tuple[Any, Libcurl]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The module, with a libcurl that answers so."""

    def make(*answers: tuple[int, bytes, int] | str) -> tuple[Any, Libcurl]:
        libcurl = Libcurl(list(answers))
        for name in ("pycurl", MODULE):
            monkeypatch.setitem(sys.modules, name, libcurl)
        del sys.modules[MODULE]
        module = import_module(MODULE)
        monkeypatch.setattr(module.time, "monotonic", lambda: libcurl.clock)
        return module, libcurl

    return make


def test_requests_go_by_http3_alone_and_trust_one_certificate(made: Made) -> None:
    module, libcurl = made()
    module.Client("10.1.0.1", 8444, 2, "/ca")
    assert libcurl.options == {"M_MAX_HOST_CONNECTIONS": 2, "M_MAX_CONCURRENT_STREAMS": 8}
    assert len(libcurl.made) == 16
    for request in libcurl.made:
        assert request.options["HTTP_VERSION"] == "CURL_HTTP_VERSION_3ONLY"
        assert request.options["URL"] == "https://bench.test:8444/"
        assert request.options["CONNECT_TO"] == ["::10.1.0.1:"]
        assert request.options["CAINFO"] == "/ca"


def test_it_is_open_when_each_connection_is_and_nothing_is_asked_any_more(made: Made) -> None:
    module, libcurl = made(NEW, *[RIGHT] * 20, NEW)
    client = module.Client("10.1.0.1", 8444, 2, "/ca")
    client.open()
    # 16 requests at a time: the second connection is of the second look, and the third is the last.
    assert libcurl.clock == 3
    assert not libcurl.asked


def test_connections_that_never_come_are_an_error(made: Made) -> None:
    module, _ = made(NEW)
    with pytest.raises(module.Unanswered, match="1 of 2 connections after 5 s"):
        module.Client("10.1.0.1", 8444, 2, "/ca").open()


def ready(made: Made, *answers: tuple[int, bytes, int] | str) -> tuple[Any, Any, Libcurl]:
    """A client of two connections that are open."""
    module, libcurl = made(*[NEW] * 2, *[RIGHT] * 30, *answers)
    client = module.Client("10.1.0.1", 8444, 2, "/ca")
    client.open()
    return module, client, libcurl


def test_answers_are_counted_and_each_is_asked_for_again_until_the_time_is_over(made: Made) -> None:
    _, client, libcurl = ready(made)
    assert client.answers(3) == (3 * 16, 3)
    assert not libcurl.asked


def test_where_nothing_has_come_it_waits_for_no_longer_than_quic_s_timer(made: Made) -> None:
    _, client, libcurl = ready(made)
    libcurl.slow = 1
    assert client.answers(3) == (2 * 16, 3)
    assert libcurl.waited == [0.02]


def test_what_is_never_answered_is_no_figure(made: Made) -> None:
    module, client, libcurl = ready(made)
    libcurl.slow = 100
    with pytest.raises(module.Unanswered, match="16 requests without an answer for 5 s"):
        client.answers(3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, ANSWER.encode(), 0), f"a wrong answer: 404 {ANSWER}"),
        ((200, ANSWER.encode()[:-1], 0), "a wrong answer: 200 0123"),
        ((200, 2 * ANSWER.encode(), 0), "a wrong answer: 200 0123"),
        (NEW, "a connection ended"),
        (STOPS, STOPS),
    ],
    ids=["status", "short", "twice", "new connection", "failed"],
)
def test_what_is_wrong_is_no_figure(made: Made, answer: tuple[int, bytes, int] | str, said: str) -> None:
    module, client, _ = ready(made, *[RIGHT] * 20, answer)
    with pytest.raises(module.Unanswered, match=said):
        client.answers(3)


def run(module: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """All of it, told to go on when it waits for that."""
    monkeypatch.setattr(module.signal, "pthread_sigmask", lambda *_: None)
    monkeypatch.setattr(module.signal, "sigwait", lambda _: print("told"))
    return int(module.main(["10.1.0.1", "8444", "3", "1", "/ca"]))


def test_it_says_when_it_is_open_and_what_came_after_it_was_told_to_go_on(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made(NEW)[0], monkeypatch) == 0
    first, told, counted = capsys.readouterr().out.splitlines()
    assert (first, told) == ("open", "told")
    assert json.loads(counted) == {"count": 24, "seconds": 3}


def test_it_ends_with_an_error_where_an_answer_is_wrong(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made(NEW, *[RIGHT] * 15, STOPS)[0], monkeypatch) == 1
    assert capsys.readouterr() == ("open\ntold\n", f"{STOPS}\n")
