"""When what was let in is over by the clock, whoever carries it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan, Rule, TransitRule


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Those of one plan."""

    lifetime: float = 0.0
    """Seconds; 0: for ever."""
    graces: Mapping[str, int] = field(default_factory=dict)
    """Of mappings that end what a credential has opened: so many seconds after it has expired."""

    @classmethod
    def of(cls, plan: Plan) -> "Deadlines":
        """What `plan` says."""
        rules: list[Rule | TransitRule] = [*plan.transit]
        rules += [rule for listener in plan.listeners for rule in listener.rules]
        graces = {rule.mapping: rule.grace for rule in rules if rule.credentials and rule.grace is not None}
        return cls(plan.settings.tunnel_lifetime, graces)

    def __bool__(self) -> bool:
        """Whether anything ever ends."""
        return bool(self.lifetime or self.graces)

    def overdue(self, mapping: str, age: float, expires: float | None) -> Reason | None:
        """Why it is over: LIFETIME, or AUTH_EXPIRED of what `mapping` let in; None: it is not.

        `age` is in seconds; `expires` is its credential's end in seconds since the epoch, None where there is
        none. Only the latter is for the wall clock to say.
        """
        if self.lifetime and age > self.lifetime:
            return Reason.LIFETIME
        grace = self.graces.get(mapping)
        if expires is None or grace is None or time.time() < expires + grace:
            return None
        return Reason.AUTH_EXPIRED

    def overdue_conversation(self, conversation: Conversation, verified: Verified | None) -> Reason | None:
        """The same of one in user space, and the credential that opened it."""
        expires = verified.expires.timestamp() if verified and verified.expires else None
        return self.overdue(conversation.answer.mapping, conversation.age(), expires)
