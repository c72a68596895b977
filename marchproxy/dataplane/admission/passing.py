"""Connections in transit that the kernel brings here: TLS that has to say where it goes (`kernel.diversion`).

The client asked for the destination by itself, and its mapping lets it go there; what is judged here is the
name alone. The connection onwards is the appliance's own, from its own address.
"""

import asyncio

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.explicit import service_of
from marchproxy.dataplane.admission.judge import opened_by
from marchproxy.dataplane.admission.reception import Admitted, Reception
from marchproxy.dataplane.admission.session import Opening
from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.protocol.exchange import Refused, Request
from marchproxy.dataplane.proxy.protocol.sni import SniLayer
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import ANYONE, Backend, TransitRule


class PassingTls(Reception):
    """Serves what was diverted."""

    async def _receive(self, wire: Wire, who: Client) -> bool:
        return await self._talk(wire, who, SniLayer())

    async def _decide(self, request: Request, wire: Wire, who: Client) -> Opening | Refused:
        name = request.host if isinstance(request.host, str) else ""
        query = Query(who.source, who.local, who.local_port, Transport.TCP)
        answer = self._judge.tunnels.refuse(who.source, name) or self._judge.ledger.evaluator.evaluate(query)
        reason = self._refusal(who, request, answer)
        if reason:
            return self._refused(who, query, answer, reason, name=name)
        try:
            until = asyncio.get_running_loop().time() + self._limits.each
            upstream = await self._connect(who.local, who.local_port, until)
        except OSError as error:
            return self._refused(who, query, answer, sockets.refusal_reason(error), name=name)
        conversation = self._judge.ledger.begin(query, who.port, opened_by(answer, None), name)
        tunnel = Tunnel(conversation, None, None)
        backend = Backend(who.local, who.local_port, service_of(answer))
        return Admitted(self._tunnels, tunnel, wire, upstream, backend, lambda: self._gate.leave(who.source))

    def _refusal(self, who: Client, hello: Request, answer: Answer) -> Reason | None:
        rule = answer.rule
        if answer.verdict.lets_through:
            return None
        if not isinstance(rule, TransitRule) or rule.sni is None or answer.reason is not Reason.SNI_MISSING:
            return answer.reason if answer.verdict is Verdict.DENY else Reason.NO_MAPPING

        def fits(name: str) -> bool:
            named = self._judge.tunnels.services(name)
            return ANYONE in rule.destinations or not named.isdisjoint(answer.meant)

        return self._name_reason(who, hello, rule.sni, fits, lambda: True)
