"""logring: the last records, and those that come, each once and in order."""

import logging
import threading
from collections.abc import Iterator

import pytest

from marchproxy.dataplane import logring, logs
from marchproxy.dataplane.logring import KEPT, LONGEST, Handler, LogQuestion, LogRing, Said
from marchproxy.dataplane.outbox import QUEUE, Lost
from tests.dataplane.loops import looped

LOG = logging.getLogger("marchproxy.test")
EVERYTHING = LogQuestion()


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger("marchproxy")
    before = root.level
    yield
    root.setLevel(before)


def said(message: str, level: str = "info", **fields: object) -> Said:
    return Said(1.0, level, "marchproxy.x", message, **fields)  # type: ignore[arg-type]


def texts(found: object) -> list[str]:
    assert isinstance(found, list | tuple)
    return [each.message if isinstance(each, Said) else f"{each.count} lost" for each in found]


@looped
async def test_the_last_are_kept_with_their_numbers() -> None:
    ring = LogRing()
    for number in range(KEPT + 5):
        ring.add(said(str(number)))
    kept = ring.find(EVERYTHING)
    assert (len(kept), kept[0].message, kept[-1].number) == (KEPT, "5", KEPT + 5)


@looped
async def test_whoever_follows_gets_what_was_and_what_comes_each_once() -> None:
    ring = LogRing()
    for word in ("a", "b", "c"):
        ring.add(said(word))
    # Not told to anybody yet: the loop has not turned since.
    following = ring.follow(EVERYTHING, 2)
    assert texts(await anext(following)) == ["b", "c"]
    ring.add(said("d"))
    assert texts(await anext(following)) == ["d"]
    await following.aclose()
    assert not ring._followers


@looped
async def test_only_what_comes_where_nothing_of_before_is_wanted() -> None:
    ring = LogRing()
    ring.add(said("a"))
    following = ring.follow(LogQuestion("warning"), 0)
    assert await anext(following) == []
    ring.add(said("b"))
    ring.add(said("c", "error"))
    assert texts(await anext(following)) == ["c"]
    await following.aclose()


@looped
async def test_a_slow_follower_is_told_how_many_it_missed() -> None:
    ring = LogRing()
    following = ring.follow(EVERYTHING, 1)
    await anext(following)
    for number in range(QUEUE + 3):
        ring.add(said(str(number)))
    assert (await anext(following))[-1] == Lost(3)
    await following.aclose()


@looped
async def test_threads_may_say_something_at_once() -> None:
    ring = LogRing()

    def say() -> None:
        for _ in range(100):
            ring.add(said("x"))

    threads = [threading.Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.number for each in ring.find(EVERYTHING)] == list(range(1, 801))


@pytest.mark.parametrize(
    ("question", "found"),
    [
        (LogQuestion("info"), ["Port 80 is taken", "fine"]),
        (LogQuestion("warning"), ["Port 80 is taken"]),
        (LogQuestion(text="port"), ["Port 80 is taken"]),
        (LogQuestion(text="worker 2"), ["detail"]),
        (LogQuestion(text="4711"), ["detail"]),
        (LogQuestion(text="oserror"), ["Port 80 is taken"]),
        (LogQuestion("critical"), []),
    ],
)
def test_questions(question: LogQuestion, found: list[str]) -> None:
    @looped
    async def ask() -> None:
        ring = LogRing()
        ring.add(said("Port 80 is taken", "error", exception="OSError: in use"))
        ring.add(said("fine"))
        ring.add(said("detail", "debug", process="worker 2", flow=4711))
        assert texts(ring.find(question)) == found

    ask()


def test_records_are_cut_and_have_no_secrets() -> None:
    taken: list[Said] = []
    handler = Handler(taken.append, "worker 1")
    handler.setLevel(logging.INFO)
    logs.listen(handler)
    try:
        LOG.info("x" * 10_000)
        LOG.warning("from %s", "postgresql://admin:hunter2@db/", extra={"flow": 12})
        LOG.debug("not of a level that is logged")
        try:
            raise ValueError("Bearer abc.def")
        except ValueError:
            LOG.exception("it failed")
        LOG.log(35, "between")
    finally:
        logs.unlisten(handler)
    long, url, failed, between = taken
    assert (len(long.message), long.level, long.process) == (LONGEST, "info", "worker 1")
    assert (url.message, url.flow, url.level) == ("from postgresql://[removed]@db/", 12, "warning")
    assert "abc.def" not in failed.exception
    assert failed.exception.endswith("ValueError: Bearer [removed]")
    assert between.level == "warning"


def test_what_cannot_be_said_ends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("marchproxy"), "propagate", False)
    handler = Handler(lambda _: None)
    handler.setLevel(logging.INFO)
    logs.listen(handler)
    try:
        LOG.info("%d", "no number")
    finally:
        logs.unlisten(handler)
    assert "no number" in capsys.readouterr().err


def test_after_the_loop_has_ended_it_still_takes_what_is_said() -> None:
    rings: list[LogRing] = []

    @looped
    async def make() -> None:
        rings.append(LogRing())

    make()
    rings[0].add(said("the last word"))
    assert texts(rings[0].find(EVERYTHING)) == ["the last word"]


@looped
async def test_what_this_process_logs_is_kept() -> None:
    logging.getLogger("marchproxy").setLevel(logging.INFO)
    with logring.keep_log() as ring:
        LOG.info("heard")
    LOG.info("no longer")
    assert texts(ring.find(EVERYTHING)) == ["heard"]


def test_levels_are_those_of_the_standard_library() -> None:
    names = [logging.getLevelName(number).lower() for number in (10, 20, 30, 40, 50)]
    assert list(logring.LEVELS) == names
