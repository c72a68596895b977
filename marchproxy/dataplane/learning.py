"""What audit lets through, aggregated and kept over restarts: what `marchproxy learn` proposes mappings from.

The table is bounded, whatever strangers send: beyond `WIDENED` sources of one end their networks stand for
them, and beyond `MOST` rows what is new is only counted.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from marchproxy.dataplane.records import Decision
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.errors import InvalidValue
from marchproxy.policy.observed import PROTOCOLS, Document, Observation, read_observations, to_document
from marchproxy.store.location import DEFAULT_STATE_DIR

log = logging.getLogger(__name__)

FORMAT = "marchproxy-learned/1"
FILE_NAME = "learned.json"
MOST = 20_000
"""Rows: eight megabytes of file."""
WIDENED = 256
"""Sources of one end that are kept by themselves."""
EVERY = 10.0
"""Seconds between two writings of the file: what a crash may cost."""
_NETWORKS = {4: 24, 6: 64}


class _End(NamedTuple):
    """What is asked for, and what would have refused it."""

    destination: IPAddress
    protocol: str
    port: int
    mapping: str


class Learning:
    """The observations, and their file. For the loop's thread, but for `save`."""

    def __init__(self, file: Path | None) -> None:
        """Read what an earlier daemon left in `file`; None: keep nothing."""
        self.missed = 0
        """Flows beyond the table's bound."""
        self._file = file
        self._rows: dict[tuple[Prefix, _End], Observation] = {}
        self._sources: Counter[_End] = Counter()
        self._dirty = False
        self._saved = time.monotonic()
        if file:
            self._restore(file)

    def take(self, decision: Decision) -> None:
        """Note a flow that audit let through, completed with names."""
        if decision.protocol not in PROTOCOLS:
            return
        port = 0 if decision.protocol == "icmp" else decision.destination_port
        end = _End(decision.destination, decision.protocol, port, decision.mapping)
        key = self._key(decision.source, end)
        held = self._rows.get(key)
        if held is None and len(self._rows) >= MOST:
            self.missed += decision.count
            return
        self._sources[end] += held is None
        self._rows[key] = Observation(
            source=key[0],
            destination=end.destination,
            protocol=end.protocol,
            port=port,
            reason=decision.reason,
            mapping=end.mapping,
            source_service=decision.source_service,
            destination_service=decision.destination_service,
            name=decision.name or (held.name if held else ""),
            count=decision.count + (held.count if held else 0),
            first=held.first if held else decision.time,
            last=decision.time,
        )
        self._dirty = True

    def observations(self) -> Sequence[Observation]:
        """What was seen, most first."""
        return sorted(
            self._rows.values(), key=lambda row: (-row.count, str(row.destination), row.port, str(row.source))
        )

    def forget(self) -> int:
        """Start anew; how many rows there were."""
        count = len(self._rows)
        self._rows.clear()
        self._sources.clear()
        self.missed, self._dirty = 0, True
        return count

    def due(self) -> bool:
        """Whether there is something to write, and it is time."""
        return self._dirty and time.monotonic() - self._saved >= EVERY

    def save(self) -> None:
        """Replace the file as a whole where there is something new; what fails is logged and tried again."""
        if not self._dirty or self._file is None:
            return
        self._dirty, self._saved = False, time.monotonic()
        try:
            # A copy in one step: the loop's thread may be taking flows in meanwhile.
            _write(self._file, list(self._rows.values()), self.missed)
        except OSError as error:
            self._dirty = True
            log.warning("%s: what was learned cannot be kept: %s", self._file, error.strerror)

    def _key(self, source: IPAddress, end: _End) -> tuple[Prefix, _End]:
        alone = ip_network(source)
        if (alone, end) in self._rows or self._sources[end] < WIDENED:
            return alone, end
        return ip_network((source, _NETWORKS[source.version]), strict=False), end

    def _restore(self, file: Path) -> None:
        try:
            document = json.loads(file.read_bytes())
            if document["format"] != FORMAT:
                raise ValueError(f"its format is {document['format']!r}")
            found = read_observations(document["observations"][:MOST])
            self.missed = int(document["missed"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError, InvalidValue) as error:
            log.warning("%s is left aside, learning starts anew: %s", file, error)
            return
        for row in found:
            end = _End(row.destination, row.protocol, row.port, row.mapping)
            self._sources[end] += (row.source, end) not in self._rows
            self._rows[row.source, end] = row


def learned_file(state_dir: Path | None) -> Path | None:
    """Beside the store's file; with a store elsewhere, in the state folder if there is one."""
    folder = state_dir or Path(os.environ.get("MARCHPROXY_STATE_DIR") or DEFAULT_STATE_DIR)
    return folder / FILE_NAME if folder.is_dir() else None


def learned_document(learning: Learning) -> Document:
    """What `learn show` prints."""
    rows = learning.observations()
    return {"missed": learning.missed, "observations": [to_document(row) for row in rows]}


def _write(file: Path, rows: Iterable[Observation], missed: int) -> None:
    document = {"format": FORMAT, "missed": missed, "observations": [to_document(row) for row in rows]}
    beside = file.with_name(f"{file.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(beside, flags, 0o600), "w", encoding="utf-8") as target:
        json.dump(document, target, separators=(",", ":"))
        target.flush()
        os.fsync(target.fileno())
    beside.replace(file)
