"""Listeners of mappings that want a credential: a line before the client's own protocol (`preface`)."""

import asyncio
import socket

from marchproxy.dataplane.admission.judge import opened_by
from marchproxy.dataplane.admission.reception import Admitted, Client, Reception
from marchproxy.dataplane.admission.session import Opening
from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy.protocol.exchange import Refused, Request
from marchproxy.dataplane.proxy.protocol.preface import GREETING, PATIENCE, PrefaceLayer
from marchproxy.dataplane.proxy.reach import Unreachable, reach
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query


class MappingListeners(Reception):
    """Serves all of them."""

    async def _receive(self, wire: Wire, who: Client) -> bool:
        query, answer = self._ask(who)
        if answer.openers and not await self._is_let_in_anyway(answer, wire):
            return await self._talk(wire, who, PrefaceLayer())
        if not answer.verdict.lets_through or answer.pool is None:
            denied = answer.verdict is Verdict.DENY
            self._refused(who, query, answer, answer.reason if denied else Reason.NO_MAPPING)
            return False
        opening = await self._open(query, answer, None, wire.socket, who)
        if isinstance(opening, Refused):
            return False
        opening.relay(b"", None)
        return True

    async def _decide(self, request: Request, wire: Wire, who: Client) -> Opening | Refused:
        query, answer = self._ask(who)
        outcome = self._judge.check(answer, request.credential, who.source)
        if isinstance(outcome, Reason):
            return self._refused(who, query, answer, outcome)
        if outcome is None and not answer.verdict.lets_through:
            return self._refused(who, query, answer, answer.reason)
        return await self._open(query, opened_by(answer, outcome), outcome, wire.socket, who)

    async def _open(
        self, query: Query, answer: Answer, verified: Verified | None, client: socket.socket, who: Client
    ) -> Admitted | Refused:
        ledger, limits = self._judge.ledger, self._limits
        conversation = ledger.begin(query, who.port, answer)
        try:
            backend, upstream = await reach(
                ledger,
                conversation,
                each=limits.each,
                within=limits.opening,
                connecting=self._connect,
            )
        except Unreachable as error:
            return self._refused(who, query, answer, error.reason)
        tunnel = Tunnel(conversation, verified, None)
        return Admitted(
            self._tunnels, tunnel, client, upstream, backend, lambda: self._gate.leave(who.source)
        )

    def _ask(self, who: Client) -> tuple[Query, Answer]:
        return self._judge.ledger.decide(Transport.TCP, who.source, who.local, who.local_port)

    async def _is_let_in_anyway(self, answer: Answer, wire: Wire) -> bool:
        """Under audit, whoever does not begin with our line speaks to the backend, as it would without us."""
        if answer.verdict is not Verdict.AUDIT:
            return False
        first = await wire.peek(asyncio.get_running_loop().time() + PATIENCE)
        return not first.startswith(GREETING[: len(first)] or GREETING)
