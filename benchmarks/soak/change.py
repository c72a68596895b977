"""An operator that does not rest: a change of the configuration, by the real commands, every second."""

import random
import threading
from collections.abc import Callable

from rig import Appliance, RigError

EVERY = 1.0
"""Seconds."""
PLACES = 20
"""Ports and addresses among which changes are made."""
LIMITS = 10
"""For one service: an address has room for twelve."""


class Operator:
    """Adds what is not there, and removes what is. Nothing of it concerns the traffic, but for the token."""

    def __init__(self, appliance: Appliance, seed: int, service: str) -> None:
        """`service`: whose token is issued again and again."""
        self.changes = 0
        self.failures: list[str] = []
        self.token = appliance.cli("token", "issue", service).stdout.strip()
        self._appliance = appliance
        self._service = service
        self._random = random.Random(seed)
        self._there: set[tuple[str, int]] = set()
        self.pausing = threading.Event()
        """Set while the daemon may be away: commands that need it would fail."""
        self.troubled = threading.Event()
        """Set while the store cannot be written: commands may fail, with an error that says so."""
        self.refused = 0
        """Commands that did."""

    def work(self, stop: threading.Event) -> None:
        """Make changes until the end."""
        while not stop.wait(EVERY):
            if self.pausing.is_set():
                continue
            troubled = self.troubled.is_set()
            try:
                self._random.choice(self._kinds())()
                self.changes += 1
            except RigError as error:
                said = f"{error.message} {error.hint}".strip()
                if "Traceback" not in said and (troubled or self.troubled.is_set()):
                    self.refused += 1
                elif not self.pausing.is_set():
                    self.failures.append(said)

    def _kinds(self) -> list[Callable[[], None]]:
        return [self._mapping, self._mapping, self._block, self._service_address, self._limit, self._rotate]

    def _mapping(self) -> None:
        at = self._random.randrange(PLACES)
        ends = ("--from", "lan", "--to", "idle", "--protocol", "tcp", "--listen", f"*:{20_000 + at}")
        self._turn("mapping", at, (f"extra{at}", *ends), f"extra{at}")

    def _block(self) -> None:
        at = self._random.randrange(PLACES)
        self._turn("block", at, (f"203.0.113.{at}",), f"203.0.113.{at}")

    def _service_address(self) -> None:
        at = self._random.randrange(PLACES)
        self._turn("service", at, (f"extra{at}", "--address", f"198.51.100.{at}"), f"extra{at}")

    def _limit(self) -> None:
        at = self._random.randrange(LIMITS)
        what = ("--per", "service", "--service", "idle", "--flows-per-second", str(100 + at))
        self._turn("limit", at, ("--name", f"extra{at}", *what), f"extra{at}")

    def _rotate(self) -> None:
        """Old and new work for a while, so that no client has to be told in the same moment."""
        words = ("token", "rotate", self._service, "--overlap", "30s")
        self.token = self._appliance.cli(*words).stdout.strip()

    def _turn(self, noun: str, at: int, added: tuple[str, ...], removed: str) -> None:
        try:
            if (noun, at) in self._there:
                self._appliance.cli(noun, "remove", removed, "--yes")
                self._there.discard((noun, at))
            else:
                self._appliance.cli(noun, "add", *added)
                self._there.add((noun, at))
        except RigError:
            if self.pausing.is_set():
                # It was interrupted, and may or may not have been written.
                self._appliance.cli(noun, "remove", removed, "--yes", check=False)
                self._there.discard((noun, at))
            raise
