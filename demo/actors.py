"""Clients that keep talking, each in a thread of its own inside a host."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rig import Host, RigError
from rig.traffic import HTTP, Talk, ask_udp, fetch

PAGE = 20_000
"""Bytes of the page that HTTP clients read again and again."""

PAUSE = 0.05
"""Seconds between two questions of one client: slow enough for any machine, fast enough to watch."""

type Step = Callable[[], None]
type Open = Callable[[ExitStack], Step]
"""Connect, leaving what has to be closed on the stack; returns what to do again and again."""


class Actor:
    """Repeats a step until the `with` block ends. What goes wrong is raised there."""

    def __init__(self, host: Host, title: str, open_step: Open) -> None:
        """`title` is who and what, for messages."""
        self.title = title
        self.done = 0
        """Steps that came out as they should."""
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=host.call, args=(self._act, open_step), name=title)

    def _act(self, open_step: Open) -> None:
        try:
            with ExitStack() as stack:
                step = open_step(stack)
                while not self._stop.wait(PAUSE):
                    step()
                    self.done += 1
        except (OSError, RigError) as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self.check()

    @property
    def running(self) -> bool:
        """Whether it has neither been stopped nor failed."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise `RigError` if it has failed, or has not done a single step."""
        if self._error is not None:
            raise RigError(f"{self.title}: {self._error}")
        if not self.done:
            raise RigError(f"{self.title}: nothing happened")


def browse(address: str) -> Open:
    """HTTP on one keep-alive connection."""

    def opened(stack: ExitStack) -> Step:
        connection = stack.enter_context(HTTP(address, 80))
        return lambda: expect(len(connection.get(f"/bytes/{PAGE}")) == PAGE, "a page arrived cut")

    return opened


def chat(address: str) -> Open:
    """Lines and their echoes on one TCP connection."""

    def opened(stack: ExitStack) -> Step:
        connection = stack.enter_context(Talk(address, 7))
        return lambda: expect(connection.say(b"hello\n") == b"hello\n", "the echo is not what was said")

    return opened


def ask(address: str) -> Open:
    """Questions over UDP, each from a port of its own, as resolvers ask."""
    return lambda _: (
        lambda: expect(ask_udp(address, 7, b"who?") == b"who?", "the answer is not the question's")
    )


def knock(address: str, source: str) -> Open:
    """HTTP from a source that has to be refused, and at once: silence would be a fault."""

    def step() -> None:
        started = time.monotonic()
        try:
            fetch(address, 80, source=source)
        except TimeoutError:
            raise RigError(f"{source} was not refused but left waiting") from None
        except OSError:
            expect(time.monotonic() - started < 1, f"{source} was refused late")
            return
        raise RigError(f"{source} was let in")

    return lambda _: step


def expect(true: bool, otherwise: str) -> None:
    """Raise `RigError` with `otherwise` unless it is true."""
    if not true:
        raise RigError(otherwise)
