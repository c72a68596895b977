"""tests/features.py: yes, no and could-not-tell are three answers, and no probe leaves anything behind."""

import errno
import os
import socket
from collections.abc import Callable

import pytest

from tests import features


def failing(code: int) -> Callable[[], None]:
    def attempt() -> None:
        raise OSError(code, os.strerror(code))

    return attempt


@pytest.mark.parametrize(
    ("attempt", "answer"),
    [
        (lambda: None, None),
        (failing(errno.EINVAL), "kernel lacks tcx (Invalid argument)"),
        (failing(errno.ENOENT), "kernel lacks tcx (No such file or directory)"),
        (failing(errno.EPERM), "cannot try tcx (Operation not permitted)"),
        (failing(errno.EMFILE), "cannot try tcx (Too many open files)"),
    ],
)
def test_three_answers(
    attempt: Callable[[], None], answer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_PROBES", {"tcx": attempt})
    assert features._answers() == {"tcx": answer}


def test_without_a_namespace_nothing_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    probes = {"netns": failing(errno.EPERM), "tcx": lambda: tried.append("tcx")}
    monkeypatch.setattr(features, "_PROBES", probes)
    assert features._answers()["tcx"] == "cannot try tcx (no network namespace for it)"
    assert tried == []


def test_every_feature_is_answered() -> None:
    assert tuple(features.probe()) == features.FEATURES


@pytest.mark.requires("root", "netns", "veth")
def test_probing_leaves_no_interface_behind() -> None:
    features.probe.cache_clear()
    before = socket.if_nameindex()
    features.probe()
    assert socket.if_nameindex() == before


@pytest.mark.parametrize("reason", ["", "too slow", "kernel lacks", "kernel lacks root", "kernel lacks time"])
def test_other_reasons_are_no_excuse(reason: str) -> None:
    assert not features.excused(reason)
