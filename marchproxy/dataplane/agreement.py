"""Whether the programs in the kernel answer as policy does. A difference is a defect, and must be loud."""

from dataclasses import dataclass

from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import Plan, TransitRule

CIRCUMSTANCES = frozenset(
    {
        Reason.NO_ROUTE,
        Reason.NO_NAT_PORT,
        Reason.FLOW_TABLE_FULL,
        Reason.MALFORMED,
        Reason.TOO_BIG,
        Reason.SPOOFED,
        Reason.REROUTED,
    }
)
"""Refusals of the kernel that are about the network around, of which policy knows nothing."""
_IN_USER_SPACE = frozenset({Reason.AUTH_MISSING, Reason.SNI_MISSING})


@dataclass(frozen=True, slots=True)
class KernelAnswer:
    """What the programs in the kernel say about the first packet of a new flow."""

    verdict: Verdict
    reason: Reason
    mapping: str
    """Qualified name, or what blocks; empty where none decided."""
    interface: str
    """Where the packet came in."""
    backend: Endpoint | None = None
    """Where it would go; of an echo without a port (0)."""
    seen_as: Endpoint | None = None
    """Where it would come from there: after NAT, if there is any."""

    @property
    def is_circumstance(self) -> bool:
        """Whether it is refused for what is no policy."""
        return self.verdict is Verdict.DENY and self.reason in CIRCUMSTANCES


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer of policy, beside that of the kernel."""

    answer: Answer
    why: tuple[str, ...]
    kernel: KernelAnswer | str
    """In words: nobody can say, and why."""
    agrees: bool | None
    """None: there is nothing to compare."""


def agrees(plan: Plan, answer: Answer, kernel: KernelAnswer) -> bool:
    """Whether both say the same, as far as both can know it."""
    if kernel.is_circumstance:
        return True
    if _is_admitted(plan, answer):
        # User space accepts the connection and decides; the programs only pass it up, or have nobody to.
        return kernel.verdict is Verdict.HOST or _is_same(answer, kernel)
    return _is_same(answer, kernel)


def _is_admitted(plan: Plan, answer: Answer) -> bool:
    if answer.listener is not None and answer.listener.key in plan.admitted:
        return True
    return isinstance(answer.rule, TransitRule) and answer.rule.reason in _IN_USER_SPACE


def _is_same(answer: Answer, kernel: KernelAnswer) -> bool:
    if kernel.verdict is not answer.verdict:
        return False
    if kernel.verdict is Verdict.HOST:
        return True
    if (kernel.reason, kernel.mapping) != (answer.reason, answer.mapping):
        return False
    if answer.pool is None or not answer.verdict.lets_through:
        return True
    places = {Endpoint(backend.address, backend.port) for backend in answer.pool.taking}
    return kernel.backend in places
