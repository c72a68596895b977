"""How a daemon is to run: what `marchproxy run` and the environment say, as one value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from marchproxy.dataplane.logs import LogFormat
from marchproxy.dataplane.runtime import DEFAULT_RUNTIME_DIR
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.errors import InvalidValue
from marchproxy.store.location import state_dir
from marchproxy.telemetry.logs.records import DEFAULT_FOLDER

DEFAULT_METRICS = Endpoint(parse_endpoint("127.0.0.1:9090").address, 9090)
DEFAULT_DRAIN = 10.0
MOST_WORKERS = 16
"""Each has a number of its own among the processors that flows are numbered by (`proxy/ledger.py`)."""
OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything a daemon is told from outside."""

    no_bpf: bool = False
    """Use sockets even where BPF is permitted."""
    state_dir: Path | None = None
    """Folder of the store; None: where the store looks by itself."""
    runtime_dir: Path = DEFAULT_RUNTIME_DIR
    """Folder of control socket and lock."""
    log_dir: Path = DEFAULT_FOLDER
    """Folder of files that requests are logged to."""
    metrics: Endpoint | None = DEFAULT_METRICS
    """Where `/metrics` and `/healthz` listen; None: nowhere."""
    drain: float = DEFAULT_DRAIN
    """Seconds that connections get to finish when the daemon stops."""
    workers: int = 0
    """Processes beside the daemon that listen to clients, 0 to `MOST_WORKERS`; 0: it does so itself."""
    verbosity: int = 0
    """1 or more: say everything that is done."""
    log_format: LogFormat = LogFormat.CONSOLE

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        no_bpf: bool = False,
        verbosity: int = 0,
        log_format: str = "",
    ) -> "RunOptions":
        """`MARCHPROXY_STATE_DIR`, `_RUNTIME_DIR`, `_LOG_DIR`, `_METRICS_LISTEN` (an endpoint or `off`),
        `_DRAIN_SECONDS`, `_WORKERS` (as many as there are processors), `_LOG_FORMAT` unless `log_format` says
        it.

        The store's own variables come before the first, as for the command line.
        Raises `InvalidValue`.
        """
        return cls(
            no_bpf=no_bpf,
            state_dir=state_dir(environment),
            runtime_dir=Path(environment.get("MARCHPROXY_RUNTIME_DIR") or DEFAULT_RUNTIME_DIR),
            log_dir=Path(environment.get("MARCHPROXY_LOG_DIR") or DEFAULT_FOLDER),
            metrics=_metrics(environment.get("MARCHPROXY_METRICS_LISTEN", "")),
            drain=_seconds(environment.get("MARCHPROXY_DRAIN_SECONDS", "")),
            workers=_workers(environment.get("MARCHPROXY_WORKERS", "")),
            verbosity=verbosity,
            log_format=_log_format(log_format or environment.get("MARCHPROXY_LOG_FORMAT", "")),
        )


def _metrics(text: str) -> Endpoint | None:
    if text.strip().lower() == OFF:
        return None
    return parse_endpoint(text, field="MARCHPROXY_METRICS_LISTEN") if text else DEFAULT_METRICS


def _log_format(text: str) -> LogFormat:
    try:
        return LogFormat(text.strip().lower() or LogFormat.CONSOLE)
    except ValueError:
        raise InvalidValue("log format", text, " or ".join(LogFormat)) from None


def _workers(text: str) -> int:
    if not text:
        return min(os.cpu_count() or 1, MOST_WORKERS)
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= MOST_WORKERS):
        raise InvalidValue("MARCHPROXY_WORKERS", text, f"a number from 0 to {MOST_WORKERS}")
    return int(text)


def _seconds(text: str) -> float:
    if not text:
        return DEFAULT_DRAIN
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise InvalidValue("MARCHPROXY_DRAIN_SECONDS", text, "whole seconds from 0 to 9999")
    return float(text)
