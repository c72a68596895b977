"""The revision on trial, as the daemon keeps it: confirmed in time, or taken back.

The daemon and nobody else takes it back. Whoever asked for the trial may be gone (a lost session is what
trials are for), and a second keeper would only be a second opinion. `--confirm` is refused where no daemon
runs; one that dies meanwhile finds the trial in the store when it is started again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.status import Problem
from marchproxy.model.errors import MarchproxyError
from marchproxy.store.revision import Revision
from marchproxy.store.store import Store
from marchproxy.store.trial import Moment, Trial

log = logging.getLogger(__name__)


class Probation:
    """Looks at the store about once a second: whoever wrote the trial may have died before saying so."""

    def __init__(self, intent: Intent, state_dir: Path | None) -> None:
        self.trial: Trial | None = None
        self._intent = intent
        self._state_dir = state_dir
        self._failure = ""

    def problems(self) -> Sequence[Problem]:
        """Why a trial that is over has not gone back yet."""
        return [Problem("policy", self._failure)] if self._failure else []

    async def attend(self) -> bool:
        """Read the trial, and take it back if it is due; whether it was, so that the store's head is new."""
        try:
            trial = self.trial = await self._intent.read(Store.trial)
            due = trial is not None and not trial.remaining(Moment.now())
            if due and trial is not None:
                await self._take_back(trial)
        except MarchproxyError as error:
            self._failed(error)
            return False
        self._failure = ""
        return due

    async def _take_back(self, trial: Trial) -> None:
        revision = await self._intent.in_worker(lambda: _revert(self._state_dir, trial))
        self.trial = None
        log.warning("revision %d was not confirmed: back as revision %d", trial.revision, revision.number)

    def _failed(self, error: MarchproxyError) -> None:
        trial = f"revision {self.trial.revision} cannot be taken back" if self.trial else "the trial"
        failure = f"{trial}: {error.message}"
        if failure != self._failure:
            log.error("%s", failure)
        self._failure = failure


def _revert(state_dir: Path | None, trial: Trial) -> Revision:
    """The daemon's own store is open for reading only, as it never writes intent but here."""
    with Store.open(state_dir) as store:
        return store.revert(trial)
