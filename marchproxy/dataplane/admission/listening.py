"""Listeners of mappings that want to be told something: a token (`preface`), a TLS name (`sni`)."""

import asyncio
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.introduction import introduce
from marchproxy.dataplane.admission.judge import opened_by
from marchproxy.dataplane.admission.reception import Admitted, Guarded, Reception
from marchproxy.dataplane.admission.session import Opening
from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy.protocol.exchange import Refused, Request, Speech
from marchproxy.dataplane.proxy.protocol.preface import GREETING, PATIENCE, PrefaceLayer
from marchproxy.dataplane.proxy.protocol.sni import SniLayer
from marchproxy.dataplane.proxy.reach import Unreachable, reach
from marchproxy.model.address import Prefix
from marchproxy.model.entities import SendProxy, WithoutSni
from marchproxy.model.presented import Presented
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import Rule

log = logging.getLogger(__name__)


class MappingListeners(Reception):
    """Serves all of them."""

    def _proxies(self, who: Client) -> Sequence[Prefix]:
        return self._judge.ledger.evaluator.proxies(who.query())

    def _certificate(self, who: Client) -> str | None:
        if not self._judge.ledger.evaluator.plan.certificates:
            return None
        rule = self._ask(who)[1].rule
        return rule.tls if isinstance(rule, Rule) else None

    async def _receive(self, wire: Wire, who: Client) -> bool:
        query, answer = self._ask(who)
        if not answer.openers and answer.reason is Reason.SNI_MISSING and answer.verdict is Verdict.DENY:
            return await self._talk(wire, who, SniLayer())
        if answer.openers and not await self._is_let_in_anyway(answer, wire):
            return await self._talk(wire, who, PrefaceLayer())
        # Meanwhile there may be another plan.
        query, answer = self._ask(who)
        if not answer.verdict.lets_through or answer.pool is None:
            denied = answer.verdict is Verdict.DENY
            self._refused(who, query, answer, answer.reason if denied else Reason.NO_MAPPING)
            return False
        opening = await self._open(query, answer, None, None, wire, who)
        if isinstance(opening, Refused):
            return False
        opening.relay(b"", None)
        return True

    async def _decide(self, request: Request, wire: Wire, who: Client) -> Opening | Refused:
        query, answer = self._ask(who)
        outcome = self._judge.check(answer, request.credential, who.source)
        if isinstance(outcome, Reason):
            return self._refused(who, query, answer, outcome)
        if outcome is None and not answer.opens_itself:
            return self._refused(who, query, answer, answer.reason)
        return await self._let_in(request, query, answer, outcome, wire, who)

    async def _let_in(
        self,
        request: Request,
        query: Query,
        answer: Answer,
        verified: Verified | None,
        wire: Wire,
        who: Client,
    ) -> Opening | Refused:
        """Where a TLS name is wanted too, it decides among backends; behind a token it comes last."""
        without = answer.rule.sni if answer.rule else None
        opened = opened_by(answer, verified)
        if without is None:
            return await self._open(query, opened, verified, request.credential, wire, who)
        services = {backend.service for backend in answer.pool.backends} if answer.pool else set()
        if request.speech is not Speech.TLS:
            opening = await self._open(query, opened, verified, request.credential, wire, who)
            if isinstance(opening, Refused):
                return opening
            refuse = partial(self._name_refusal, who, {opening.backend.service}, without)
            return Guarded(self, opening, wire, who, refuse)
        name = request.host if isinstance(request.host, str) else ""
        reason = self._name_refusal(who, services, without, request)
        if reason:
            return self._refused(who, query, answer, reason, name=name)
        among = self._judge.tunnels.services(name) if name else None
        return await self._open(query, opened, verified, request.credential, wire, who, name, among)

    def _name_refusal(
        self, who: Client, services: AbstractSet[str], without: WithoutSni, hello: Request
    ) -> Reason | None:
        """The name must be of a service that the listener leads to."""
        named = self._judge.tunnels.services

        def fits(name: str) -> bool:
            return not services.isdisjoint(named(name))

        return self._name_reason(who, hello, without, fits, lambda: True)

    async def _open(
        self,
        query: Query,
        answer: Answer,
        verified: Verified | None,
        presented: Presented | None,
        client: Wire,
        who: Client,
        name: str = "",
        among: AbstractSet[str] | None = None,
    ) -> Admitted | Refused:
        ledger, limits = self._judge.ledger, self._limits
        evaluator = ledger.evaluator
        conversation = ledger.begin(query, who.port, answer, name)
        try:
            backend, upstream = await reach(
                ledger,
                conversation,
                each=limits.each,
                within=limits.opening,
                connecting=self._connect,
                among=among,
            )
        except Unreachable as error:
            return self._refused(who, query, answer, error.reason, name=name)
        try:
            introduce(
                upstream, answer.rule.send_proxy if isinstance(answer.rule, Rule) else SendProxy.NONE, who
            )
        except OSError:
            upstream.close()
            return self._refused(who, query, answer, Reason.UPSTREAM_REFUSED, name=name)
        tunnel = Tunnel(conversation, verified, None, evaluator, presented)
        # A flow of the kernel's would be the proxy's, and judged as that.
        tunnel.stays = who.proxy is not None
        return Admitted(self._tunnels, tunnel, client, upstream, backend, lambda: self._gate.leave(who.peer))

    def _ask(self, who: Client) -> tuple[Query, Answer]:
        return self._judge.ledger.decide(Transport.TCP, who.source, who.local, who.local_port)

    async def _is_let_in_anyway(self, answer: Answer, wire: Wire) -> bool:
        """Under audit, whoever does not begin with our line speaks to the backend, as it would without us."""
        if answer.verdict is not Verdict.AUDIT:
            return False
        first = await wire.peek(asyncio.get_running_loop().time() + PATIENCE)
        return not first.startswith(GREETING[: len(first)] or GREETING)
