"""Who may have what: by the plan in force, and by credentials. Decides and counts failures; no I/O."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from marchproxy.dataplane.credentials.book import CredentialBook, Verified
from marchproxy.dataplane.credentials.limiter import FailureLimiter
from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.lately import lately
from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.model.address import IPAddress
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import Plan
from marchproxy.policy.tunnels import TunnelEvaluator, Wish


class Credentials(Protocol):
    """What there is to know about credentials."""

    @property
    def book(self) -> CredentialBook:
        """What opens what, now."""

    def note_use(self, token: str, now: datetime) -> None:
        """Remember that a token was used, by the name that `Verified` gives it."""


class Judge:
    """Asks policy, then credentials."""

    def __init__(
        self, ledger: Ledger, credentials: Credentials, local: Callable[[IPAddress], bool] | None = None
    ) -> None:
        self.ledger = ledger
        self._credentials = credentials
        self._local = local or lately(is_local)
        self._failures = FailureLimiter()
        self._ask()

    def adopt(self, plan: Plan, revision: int) -> None:
        """Decide by `plan` from now on."""
        self.ledger.adopt(plan, revision)
        self._ask()

    def _ask(self) -> None:
        self.tunnels = TunnelEvaluator(self.ledger.evaluator, self._local)
        # Clients ask for the same again and again, and only `local` can change under one plan.
        self._answers = lately(self.tunnels.evaluate)

    @property
    def cookie_key(self) -> bytes:
        """See `CredentialBook`."""
        return self._credentials.book.cookie_key

    def tunnel(self, wish: Wish) -> Answer:
        """What policy says about a tunnel, or said a moment ago."""
        return self._answers(wish)

    def check(
        self, answer: Answer, presented: Presented | None, source: IPAddress
    ) -> Verified | Reason | None:
        """What of `answer` depends on a credential: the one that opens it, or why it stays shut.

        None: nothing does, or audit lets it through as it is.
        """
        return self.check_all([answer], presented, source)[0]

    def check_all(
        self, answers: Sequence[Answer], presented: Presented | None, source: IPAddress
    ) -> Sequence[Verified | Reason | None]:
        """The same of each of the answers to one request, which fails once however many there are."""
        if not any(answer.openers for answer in answers):
            return [None] * len(answers)
        now, instant = time.monotonic(), datetime.now(UTC)
        waits = presented is not None and self._failures.wait(source, now)
        book = self._credentials.book
        found: dict[tuple[str, ...], Verified | Reason] = {
            openers: Reason.RATE_LIMITED if waits else book.verify(presented, openers, instant)
            for openers in dict.fromkeys(answer.openers for answer in answers)
            if openers
        }
        right = [outcome for outcome in found.values() if isinstance(outcome, Verified)]
        if right:
            self._credentials.note_use(right[0].token, instant)
        elif Reason.AUTH_INVALID in found.values():
            self._failures.failed(source, now)
        return [_outcome(answer, found.get(answer.openers)) for answer in answers]

    def taken_back(self, presented: Presented | None, verified: Verified | None) -> Reason | None:
        """Why a credential that was right opens nothing by now; None: it does, or none was needed."""
        if presented is None or verified is None:
            return None
        found = self._credentials.book.verify(presented, (verified.service,), datetime.now(UTC))
        return found if isinstance(found, Reason) else None

    def keeps(self, answer: Answer, verified: Verified | None) -> bool:
        """Whether what runs may go on under this answer. A credential that was right stays so: what becomes
        of tunnels when it expires or is taken back is not asked here.
        """
        opened = answer.opens_itself or (verified is not None and verified.service in answer.openers)
        return answer.keeps or opened


def _outcome(answer: Answer, found: Verified | Reason | None) -> Verified | Reason | None:
    return None if not isinstance(found, Verified) and answer.verdict is Verdict.AUDIT else found


def opened_by(answer: Answer, verified: Verified | None) -> Answer:
    """`answer` as it stands once its credential was right, and its TLS name will be."""
    if verified is None and (answer.reason is not Reason.SNI_MISSING or answer.verdict is Verdict.AUDIT):
        return answer
    return replace(answer, verdict=Verdict.ALLOW, reason=Reason.FORWARDED)
