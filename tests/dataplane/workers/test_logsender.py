"""logsender: what a worker logs arrives in order, and what does not is counted."""

import threading

from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.workers.logsender import WAITING, LogSender
from marchproxy.dataplane.workers.messages import Logged
from tests.dataplane.loops import looped, until


def said(message: str) -> Said:
    return Said(1.0, "info", "marchproxy.x", message)


@looped
async def test_records_of_any_thread_are_collected() -> None:
    told: list[Logged] = []
    sender = LogSender(told.append)
    sender.put(said("a"))
    thread = threading.Thread(target=sender.put, args=(said("b"),))
    thread.start()
    thread.join()
    await until(lambda: bool(told))
    assert told == [Logged((said("a"), said("b")), 0)]
    sender.put(said("c"))
    await until(lambda: len(told) == 2)


@looped
async def test_there_is_room_for_so_many_and_the_others_are_counted() -> None:
    told: list[Logged] = []
    sender = LogSender(told.append)
    for number in range(WAITING + 4):
        sender.put(said(str(number)))
    sender.flush()
    (message,) = told
    assert (len(message.said), message.lost) == (WAITING, 4)
    sender.flush()
    assert len(told) == 1
