"""The explicit proxy: a client says where it wants to go, by HTTP or SOCKS5."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.association import Association, Associations
from marchproxy.dataplane.admission.dialling import dial, interleaved
from marchproxy.dataplane.admission.judge import Judge, opened_by
from marchproxy.dataplane.admission.limits import AdmissionLimits, Gate
from marchproxy.dataplane.admission.names import AskedAddresses
from marchproxy.dataplane.admission.reception import Admitted, Guarded, Reception
from marchproxy.dataplane.admission.session import Opening
from marchproxy.dataplane.admission.tunnels import Tunnel, Tunnels
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.connecting import Connect
from marchproxy.dataplane.proxy.protocol.detect import ExplicitLayer
from marchproxy.dataplane.proxy.protocol.exchange import Refused, Request, Speech, Unfit
from marchproxy.dataplane.proxy.protocol.http_answer import render_refusal
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import WithoutSni
from marchproxy.model.making import maker
from marchproxy.model.presented import Presented
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Evaluator
from marchproxy.policy.plan import WILDCARDS, Backend
from marchproxy.policy.tunnels import Wish, make_wish, plain

_NOTHING = Answer(Verdict.DENY, Reason.NO_MAPPING, ())


@dataclass(frozen=True, slots=True)
class _Way:
    """An address that the client may be connected to, and by what."""

    wish: Wish
    answer: Answer
    verified: Verified | None
    presented: Presented | None
    evaluator: Evaluator
    """By which it was found."""


_make_way = maker(_Way)


class _Shut(Exception):
    """The request is refused."""

    def __init__(self, reason: Reason, answer: Answer, address: IPAddress | None, detail: str = "") -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.answer = answer
        self.address = address
        self.detail = detail


class ExplicitProxy(Reception):
    """Serves all explicit listeners."""

    protocols = ("http/1.1",)

    def __init__(
        self,
        judge: Judge,
        tunnels: Tunnels,
        gate: Gate,
        limits: AdmissionLimits,
        connecting: Connect,
        contexts: Contexts,
        names: AskedAddresses,
        associations: Associations,
    ) -> None:
        super().__init__(judge, tunnels, gate, limits, connecting, contexts)
        self._names = names
        self._associations = associations

    def _certificate(self, who: Client) -> str | None:
        return _served_at(self._judge.ledger.evaluator.plan.tls, who)

    def _proxies(self, who: Client) -> Sequence[Prefix]:
        return _served_at(self._judge.ledger.evaluator.plan.introduced, who) or ()

    def _told_in_the_clear(self) -> bytes:
        return render_refusal(Unfit(Reason.MALFORMED, "this proxy speaks TLS: call it https://"))

    async def _receive(self, wire: Wire, who: Client) -> bool:
        return await self._talk(wire, who, ExplicitLayer())

    async def _decide(self, request: Request, wire: Wire, who: Client) -> Opening | Refused:
        name = request.host if isinstance(request.host, str) else ""
        try:
            if request.speech is Speech.ASSOCIATE:
                return self._associate(request, wire, who)
            until = asyncio.get_running_loop().time() + self._limits.opening
            return await self._open(request, name, wire, who, until)
        except _Shut as shut:
            query = who.query(shut.address, request.port)
            return self._refused(who, query, shut.answer, shut.reason, name=name, detail=shut.detail)
        except TimeoutError:
            query = who.query(None, request.port)
            return self._refused(who, query, _NOTHING, Reason.UPSTREAM_TIMEOUT, name=name)

    async def _open(self, request: Request, name: str, wire: Wire, who: Client, until: float) -> Opening:
        ways = await self._ways(request, name, who, until)
        plainly = request.speech is Speech.FORWARD
        if plainly:
            ways = _without_tls(ways)
        by_address = {way.wish.address: way for way in ways}
        port = ways[0].wish.port
        try:
            address, upstream = await dial(list(by_address), port, self._limits, self._connect, until)
        except OSError as error:
            reason, way = sockets.refusal_reason(error), ways[0]
            raise _Shut(reason, way.answer, way.wish.address, _tried(by_address, port)) from None
        way = by_address[address]
        opening = self._admitted(way, wire, upstream, who)
        rule = way.answer.rule
        if plainly or rule is None or rule.sni is None or way.answer.verdict is Verdict.AUDIT:
            return opening
        return Guarded(self, opening, wire, who, partial(self._name_refusal, who, way, rule.sni))

    def _name_refusal(self, who: Client, way: _Way, without: WithoutSni, hello: Request) -> Reason | None:
        """What was asked for and what TLS says must agree; behind an address, it must be of a service
        that the rule is to.
        """
        wish, tunnels = way.wish, self._judge.tunnels

        def fits(name: str) -> bool:
            if wish.name:
                return name == wish.name
            among = way.answer.meant
            return not among or not among.isdisjoint(tunnels.services(name))

        def by_address() -> bool:
            answer = self._judge.tunnel(replace(wish, name=""))
            return self._judge.keeps(answer, way.verified)

        return self._name_reason(who, hello, without, fits, by_address)

    def _admitted(self, way: _Way, client: Wire, upstream: socket.socket, who: Client) -> Admitted:
        wish, answer = way.wish, opened_by(way.answer, way.verified)
        query = who.query(wish.address, wish.port)
        conversation = self._judge.ledger.begin(query, who.port, answer, wish.name)
        backend = Backend(wish.address, wish.port, service_of(answer))
        tunnel = Tunnel(conversation, way.verified, wish, way.evaluator, way.presented)
        tunnel.stays = who.proxy is not None
        return Admitted(self._tunnels, tunnel, client, upstream, backend, lambda: self._gate.leave(who.peer))

    async def _ways(self, request: Request, name: str, who: Client, until: float) -> Sequence[_Way]:
        """Where to connect, in this order; at least one. Raises `_Shut`."""
        port = request.port or 0
        addresses = await self._addresses(request, name, who, until)
        found, first = [], None
        wishes = [make_wish(who.source, name, address, port) for address in addresses]
        answers = [self._judge.tunnel(wish) for wish in wishes]
        outcomes = self._judge.check_all(answers, request.credential, who.source)
        for wish, answer, outcome in zip(wishes, answers, outcomes, strict=True):
            if isinstance(outcome, Reason):
                first = first or _Shut(outcome, answer, wish.address, _wanted(answer))
            elif outcome is None and not answer.opens_itself:
                first = first or _Shut(answer.reason, answer, wish.address, _denied(answer, wish))
            else:
                evaluator = self._judge.ledger.evaluator
                found.append(_make_way(wish, answer, outcome, request.credential, evaluator))
        if not found:
            raise first or _Shut(Reason.NAME_UNKNOWN, _NOTHING, None)
        return found

    async def _addresses(self, request: Request, name: str, who: Client, until: float) -> Sequence[IPAddress]:
        if not isinstance(request.host, str):
            return [plain(request.host)] if request.host is not None else []
        tunnels = self._judge.tunnels
        blocked = tunnels.refuse(who.source, name)
        if blocked:
            raise _Shut(blocked.reason, blocked, None)
        if not tunnels.may_ask(who.source, request.port or 0, Transport.TCP):
            raise _Shut(Reason.NO_MAPPING, _NOTHING, None, _stranger(who.source, request.port or 0))
        try:
            return interleaved(map(plain, await self._names.find(name, who.source, until)))
        except LookupError:
            raise _Shut(Reason.NAME_UNKNOWN, _NOTHING, None, f"{name} does not resolve") from None

    def _associate(self, request: Request, wire: Wire, who: Client) -> Association:
        if not self._judge.tunnels.may_ask(who.source, 0, Transport.UDP):
            raise _Shut(Reason.NO_MAPPING, _NOTHING, None)
        association = self._associations.open(
            wire.socket,
            who,
            request.credential,
            lambda: self._gate.leave(who.peer),
        )
        if association is None:
            raise _Shut(Reason.FLOW_TABLE_FULL, _NOTHING, None)
        return association


def _served_at[T](listeners: Mapping[Endpoint, T], who: Client) -> T | None:
    """What is so at the listener that a client has come to."""
    if not listeners:
        return None
    every = (who.local, WILDCARDS[who.local.version], None)
    return next(
        (listeners[at] for each in every if (at := Endpoint(each, who.local_port)) in listeners), None
    )


def _without_tls(ways: Sequence[_Way]) -> Sequence[_Way]:
    """Those whose mapping takes a client that names no host by TLS; at least one. Raises `_Shut`."""
    found = [way for way in ways if not way.answer.rule or way.answer.rule.sni in (None, WithoutSni.ALLOW)]
    if not found:
        raise _Shut(Reason.SNI_MISSING, ways[0].answer, ways[0].wish.address, "ask for it by https")
    return found


def service_of(answer: Answer) -> str:
    """The service that a tunnel goes to: one that its rule names before others."""
    return min(answer.meant or answer.destination_services, default="")


def _wanted(answer: Answer) -> str:
    services = ", ".join(answer.openers[:4])
    return f"mapping {answer.mapping} wants a credential of {services}" if services else ""


def _denied(answer: Answer, wish: Wish) -> str:
    where = Endpoint(wish.address, wish.port)
    if answer.reason is Reason.PRIVATE_ADDRESS:
        return f"{wish.name or wish.address} leads to {where}, which is inside; no mapping is to that address"
    if answer.mapping and not answer.blocked_by:
        return f"mapping {answer.mapping} denies {where}"
    where_to = f"{wish.name}:{wish.port}" if wish.name else str(where)
    return "" if answer.blocked_by else f"no mapping lets {wish.source} reach {where_to}"


def _stranger(source: IPAddress, port: int) -> str:
    return f"no mapping lets {source} reach anything on port {port}"


def _tried(addresses: Sequence[IPAddress] | dict[IPAddress, _Way], port: int) -> str:
    return "tried " + ", ".join(str(Endpoint(address, port)) for address in list(addresses)[:4])
