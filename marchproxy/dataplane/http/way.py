"""The way that a request went, for what its client asks again word for word.

Nothing is decided anew on it: by another plan it is not taken, nor while any backend fails. Only requests
have one of which policy wants nothing but to know them, and whose client stays with one backend.
"""

from dataclasses import dataclass

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.upstream import Carrier, Connections
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.policy.evaluate import Answer, Evaluator
from marchproxy.policy.plan import Backend, Handling


@dataclass(slots=True)
class Way:
    """One, by one plan. It is not changed, and not frozen either, which would make it dear."""

    request: Request
    evaluator: Evaluator
    answer: Answer
    handling: Handling
    conversation: Conversation
    backend: Backend
    connections: Connections

    def again(self, request: Request, site: Site) -> Carrier | None:
        """A connection to its backend; None: none is free, or `request` has to be decided."""
        if request is not self.request or self.evaluator is not site.ledger.evaluator or site.care.circuits:
            return None
        return self.connections.take(self.backend)


def goes_again(answer: Answer, handling: Handling) -> bool:
    """Whether nothing has to be done for each request that was decided so."""
    each = handling.trace or handling.mirror or handling.retry_on or handling.max_requests
    return not each and (answer.actions is None or not answer.actions.sticky)
