"""tracing: the child ends when it is asked to, when its time is up, and when we are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.trace import tracing
from marchproxy.dataplane.trace.headers import namespace_number
from marchproxy.dataplane.trace.scope import Scope
from marchproxy.dataplane.trace.tracing import PYTHON, Job, Question, Tracing
from marchproxy.model.errors import MarchproxyError
from rig.servers import ROOT
from rig.waiting import wait_for

pytestmark = pytest.mark.requires("root", "btf", "bpf", commands=["/usr/bin/python3"])


def job(question: Question = Question.DROPS, duration: int = 60) -> Job:
    return Job(question=question, namespace=namespace_number(), duration=duration)


@pytest.mark.parametrize("scope", [None, Scope()], ids=["everything", "nothing"])
@pytest.mark.parametrize("question", list(Question))
def test_every_program_is_compiled_and_attached(question: Question, scope: Scope | None) -> None:
    with Tracing(replace(job(question), scope=scope)) as asked:
        documents = asked.documents()
        assert next(documents)["kind"] == "ready"
        asked.stop()
        assert list(documents)[-1] == {"kind": "end", "untold": 0}


def test_it_ends_by_itself() -> None:
    with Tracing(job(duration=1)) as asked:
        assert list(asked.documents())[-1]["kind"] == "end"


def test_files_are_gone_as_soon_as_all_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Tracing(job()) as asked:
        assert len(list(tmp_path.iterdir())) == 1
        next(asked.documents())
        assert list(tmp_path.iterdir()) == []


def test_leaving_early_ends_the_child() -> None:
    with Tracing(job()) as asked:
        next(asked.documents())
    assert asked._process.returncode is not None


def test_child_of_one_that_was_killed_ends() -> None:
    code = (
        "import sys, time\n"
        "from marchproxy.dataplane.trace.tracing import *\n"
        "from marchproxy.dataplane.trace.headers import namespace_number\n"
        "with Tracing(Job(question=Question.DROPS, namespace=namespace_number(), duration=600)) as asked:\n"
        "    next(asked.documents())\n"
        "    print(asked._process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(child), "the child to end")


def alive(process: int) -> bool:
    """Whether it runs: one that has ended and was not waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def test_program_that_does_not_compile_is_told_of_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_source", lambda _: "int broken(\n")
    with Tracing(job()) as asked, pytest.raises(MarchproxyError, match=r"BCC could not trace: .*error:"):
        next(asked.documents())


def test_events_above_the_rate_are_counted_and_in_the_totals() -> None:
    import socket

    found: list[Any] = []
    namespace = namespace_number()
    with Tracing(Job(question=Question.DROPS, namespace=namespace, duration=60, rate=1)) as asked:
        for document in asked.documents():
            found.append(document)
            if document["kind"] == "ready":
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.bind(("127.0.0.1", 0))
                    port = sender.getsockname()[1]
                    for _ in range(20):
                        sender.sendto(b"?", ("127.0.0.1", 9))
                time.sleep(0.2)
                asked.stop()
    ours = [each for each in found if each.get("source_port") == port]
    (total,) = [each for each in ours if each["kind"] == "total"]
    assert (total["count"], total["reason"], total["protocol"]) == (20, "NO_SOCKET", 17)
    assert len([each for each in ours if each["kind"] == "drop"]) <= 2
    assert found[-1]["untold"] >= 18
    assert json.dumps(found)
    assert PYTHON == "/usr/bin/python3"
