"""settling: garbage goes, what is left is not looked through again, and freed memory goes back."""

import ctypes
import gc
import subprocess
import sys
import weakref

import pytest

from marchproxy.dataplane.settling import settle


class Knot:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


def test_garbage_is_freed_before_what_stays_is_kept_from_the_collector() -> None:
    frozen = gc.get_freeze_count()
    gone, kept = weakref.ref(Knot()), Knot()
    try:
        settle()
        assert gone() is None
        assert gc.get_freeze_count() > frozen
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_later_nothing_is_given_back_that_will_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = gc.get_freeze_count()
    trimmed: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", trimmed.append)
    try:
        settle(trim=False)
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
    assert not trimmed


def test_what_was_taken_for_a_moment_is_given_back() -> None:
    """Blocks of the C library with something behind them that stays: else they are given back anyway."""
    program = (
        "import ctypes as ct\n"
        "from marchproxy.dataplane.settling import settle\n"
        "c = ct.CDLL(None)\n"
        "c.malloc.restype, c.free.argtypes = ct.c_void_p, [ct.c_void_p]\n"
        "def used():\n"
        "    for line in open('/proc/self/smaps_rollup'):\n"
        "        if line.startswith('Anonymous:'):\n"
        "            return int(line.split()[1])\n"
        "size, count = 60_000, 200\n"
        "taken = [c.malloc(size) for _ in range(count)]\n"
        "for block in taken:\n"
        "    ct.memset(block, 1, size)\n"
        "after = c.malloc(size)\n"
        "for block in taken:\n"
        "    c.free(block)\n"
        "before = used()\n"
        "settle()\n"
        "print(before - used())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 10_000
