"""One live question: a child with BCC that asks it, and what it says."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from marchproxy import bpf
from marchproxy.dataplane.kernel.structs import kernel_types
from marchproxy.dataplane.trace.headers import REASON_PREFIX, REASONS, write_headers
from marchproxy.dataplane.trace.scope import Scope
from marchproxy.model.errors import MarchproxyError, NotPermitted

PYTHON: Final = "/usr/bin/python3"
"""The distribution's own, for which BCC is packaged."""
PROGRAMS: Final = Path(bpf.__file__).parent / "trace"
_CHILD: Final = Path(__file__).with_name("child.py")
_SPLICED: Final = ("packet.h", "scope.h")
_SAID: Final = "said"
_END_SECONDS: Final = 10.0
"""For a child that was asked to end."""


class Question(StrEnum):
    """What can be asked; the names of the programs in `bpf/trace/`."""

    LATENCY = "latency"
    RETRANSMITS = "retransmits"
    DROPS = "drops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A question, and its bounds."""

    question: Question
    namespace: int
    """The number of the network namespace that is looked at."""
    duration: int
    """Seconds."""
    rate: int = 1000
    """Events a second that are told; totals have all."""
    scope: Scope | None = None
    """What of the namespace is told; None: everything."""
    backends: Sequence[tuple[str, int]] = ()
    """Addresses and ports whose connections are open already. Of use for the latency alone."""
    python: str = field(default=PYTHON)


class BccMissing(MarchproxyError):
    """The real BCC is not installed for the distribution's Python."""

    def __init__(self, python: str) -> None:
        super().__init__(
            f"BCC is not installed: {python} cannot import bcc",
            hint="run: apt install python3-bpfcc (the package called bcc on PyPI is something else)",
        )


class Tracing:
    """Runs as long as the context; `documents` yields what the child says, its totals last."""

    def __init__(self, job: Job) -> None:
        """Start the child. Raises `NotPermitted`, `BccMissing` or another `MarchproxyError`."""
        self._job = job
        self._folder = tempfile.TemporaryDirectory(prefix="marchproxy-trace-")
        try:
            self._process = self._start()
        except BaseException:
            self._folder.cleanup()
            raise
        # They are pipes, as `_start` says.
        self._stdin, self._stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self._ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        try:
            self._process.wait(0 if error else _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._folder.cleanup()

    def stop(self) -> None:
        """Ask for the totals now. May be repeated."""
        # What could not be written is of no use to a child that has ended.
        with suppress(BrokenPipeError):
            self._stdin.close()

    def documents(self) -> Iterator[Mapping[str, Any]]:
        """`ready` once it looks, events as they happen, totals, `end`. Raises `MarchproxyError`."""
        for line in self._stdout:
            document = json.loads(line)
            if document["kind"] == "error":
                raise self._refusal(document["name"], document["message"])
            if document["kind"] == "ready":
                # All is compiled. Should we be killed now, nothing is left behind.
                self._folder.cleanup()
            yield document
            if document["kind"] == "end":
                return
        raise self._refusal("ended", "it ended early")

    def _start(self) -> "subprocess.Popen[str]":
        if os.geteuid() != 0:
            raise NotPermitted("tracing the kernel takes root", hint="run it with sudo")
        job, folder = self._job, Path(self._folder.name)
        write_headers(folder, kernel_types(), namespace=job.namespace, rate=job.rate, scope=job.scope)
        with (folder / _SAID).open("wb") as said:
            try:
                return subprocess.Popen(
                    # -I: neither this environment's packages nor the current folder's.
                    [job.python, "-I", str(_CHILD)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    # Ctrl-C is for us: the child then still tells its totals.
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise BccMissing(job.python) from None

    def _ask(self) -> None:
        job = self._job
        question = {
            "kind": str(job.question),
            "source": _source(job.question),
            "kernel": self._folder.name,
            "duration": job.duration,
            "backends": list(job.backends) if job.question is Question.LATENCY else [],
            "scope": job.scope.document() if job.scope else {},
            "reasons": _reasons() if job.question is Question.DROPS else {},
        }
        # A child that has ended already said why, and `documents` reads it.
        with suppress(BrokenPipeError):
            self._stdin.write(json.dumps(question) + "\n")
            self._stdin.flush()

    def _refusal(self, name: str, message: str) -> MarchproxyError:
        if name == "missing":
            return BccMissing(self._job.python)
        path = Path(self._folder.name) / _SAID
        said = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        why = next((line for line in said if "error" in line.lower()), said[-1] if said else message)
        return MarchproxyError(
            f"BCC could not trace: {why}",
            hint="it needs CAP_BPF and CAP_PERFMON, and a kernel with BPF and BTF",
        )


def _source(question: Question) -> str:
    """The program with what it includes of ours: BCC gives meaning to maps in the main file alone."""
    text = (PROGRAMS / f"{question}.c").read_text()
    for name in _SPLICED:
        text = text.replace(f"#include <{name}>\n", (PROGRAMS / name).read_text())
    return text


def _reasons() -> Mapping[str, str]:
    """Numbers of the kernel's reasons to their names, without what all of them begin with."""
    found = kernel_types().enumerators(REASONS)
    return {str(number): name.removeprefix(REASON_PREFIX) for number, name in found.items()}
