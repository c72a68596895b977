"""`/healthz` and `/metrics`, for machines that look after this one."""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus

from marchproxy.dataplane.carried import Carried, Load, Side
from marchproxy.dataplane.control.http1 import HttpError, Request, Response
from marchproxy.dataplane.control.server import HttpServer
from marchproxy.dataplane.devices import read_devices
from marchproxy.dataplane.outliers import CHECK
from marchproxy.dataplane.status import COMPONENTS, Problem, Status
from marchproxy.model.endpoint import Endpoint
from marchproxy.telemetry import metrics
from marchproxy.telemetry.facts import BackendFact, CarriedFact, Counts, Facts, LoadFact, Refused
from marchproxy.telemetry.seats import Seats

type ReadCarried = Callable[[], Awaitable[Mapping[str, Carried]]]
"""What was carried, by tier; see `CarriedCounts.read`."""

RETRY = 10.0
"""Seconds until a port that was taken is tried again."""


class HealthServer:
    """Listens for `HealthApi`. A port that cannot be opened is a problem, but none that stops traffic."""

    def __init__(self, endpoint: Endpoint | None, status: Callable[[], Status], carried: ReadCarried) -> None:
        """`endpoint` None: listen nowhere."""
        self._endpoint = endpoint
        self._server = HttpServer("health", HealthApi(status, carried).handle)
        self._problem = ""
        self._next_attempt = 0.0
        self._listening: socket.socket | None = None
        self._serving = False

    def claim(self) -> None:
        """Take the port, if that is wanted, not the case, and worth another attempt; who asks waits.

        Before policy opens listeners: a mapping that listens on every port would have this one, too.
        """
        if self._endpoint is None or self._listening or time.monotonic() < self._next_attempt:
            return
        try:
            self._listening = _open(self._endpoint)
        except OSError as error:
            self._problem = f"cannot listen on {self._endpoint}: {os.strerror(error.errno or 0)}"
            self._next_attempt = time.monotonic() + RETRY
            return
        self._problem = ""

    async def ensure(self) -> None:
        """Answer, if that is wanted and the port to be had."""
        self.claim()
        if self._listening and not self._serving:
            self._serving = True
            await self._server.start(self._listening)

    def problems(self) -> Sequence[Problem]:
        """Why nobody can ask."""
        return [Problem("metrics", self._problem)] if self._problem else []

    async def close(self) -> None:
        """Stop listening."""
        await self._server.close()
        if self._listening and not self._serving:
            self._listening.close()


class HealthApi:
    """Two read-only paths over the daemon's status."""

    def __init__(self, status: Callable[[], Status], carried: ReadCarried) -> None:
        self._status = status
        self._carried = carried
        self._seats = Seats()

    async def handle(self, request: Request) -> Response:
        """Answer one request. Raises `HttpError`."""
        if request.path not in ("/healthz", "/metrics"):
            message = "there are /healthz and /metrics"
            raise HttpError(HTTPStatus.NOT_FOUND, "NotFound", message)
        if request.method != "GET":
            error = HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", "only GET and HEAD")
            error.headers["Allow"] = "GET, HEAD"
            raise error
        status = self._status()
        if request.path == "/healthz":
            return _health(status)
        # Counters that are older than the others would be are as good; those that wait would not be.
        found = facts(self._status(), await self._carried())
        return Response(metrics.render(found, self._seats), content_type=metrics.CONTENT_TYPE)


def facts(status: Status, carried: Mapping[str, Carried]) -> Facts:
    """The status as what the exposition consumes."""
    problems = Counter(problem.component for problem in status.problems)
    return Facts(
        version=status.version,
        tier=status.tier,
        revision=status.applied.number,
        applied=status.applied.at,
        apply_seconds=status.applied.took,
        trial_seconds=status.trial_remaining,
        listeners=len(status.listeners),
        counters={
            by: {reason: (traffic.packets, traffic.bytes) for reason, traffic in counters.items()}
            for by, counters in ((status.tier, status.carried), ("admission", status.admitted))
        },
        denied=_refused(status, audited=False),
        audited=_refused(status, audited=True),
        by_mapping=list(_by_mapping(carried)),
        by_service=list(_by_service(carried)),
        limits={
            limit.name: (limit.passed.packets, limit.passed.bytes, limit.dropped.packets, limit.dropped.bytes)
            for limit in status.limits
        },
        tables={table.name: (table.used, table.limit) for table in status.tables},
        interfaces={each.name: (each.role.value, each.attached) for each in status.interfaces},
        devices=read_devices({each.name for each in status.interfaces}),
        names={name.name: (len(name.addresses), name.state, name.unlearned) for name in status.names},
        questions=status.dns.questions,
        backends=[
            BackendFact(state.service, str(state.address), state.port, state.up, state.drained)
            for state in status.backends
            if state.check != CHECK
        ],
        ejected=Counter(state.service for state in status.backends if state.check == CHECK),
        loads=[LoadFact(each.service, str(each.address), each.port, each.flows) for each in status.loads],
        missed=status.missed,
        requests=status.requests,
        certificates={state.name: state.expires for state in status.certificates},
        problems={component: problems[component] for component in COMPONENTS},
        sinks=status.sinks,
        lost_events=status.lost_events,
        reloads=status.reloads,
        failed_reloads=status.failed_reloads,
    )


def _by_mapping(carried: Mapping[str, Carried]) -> Iterator[CarriedFact]:
    for tier, found in carried.items():
        for name, load in found.mappings.items():
            yield CarriedFact(name, "", tier, load.flows, *_ways(load))


def _by_service(carried: Mapping[str, Carried]) -> Iterator[CarriedFact]:
    """What a service has sent is what clients have received, where it is the destination."""
    for tier, found in carried.items():
        for (name, side), load in found.services.items():
            sent, received = _ways(load) if side is Side.SOURCE else reversed(_ways(load))
            yield CarriedFact(name, side.value, tier, load.flows, sent, received)


def _ways(load: Load) -> tuple[Counts, Counts]:
    return (load.sent_packets, load.sent_bytes), (load.received_packets, load.received_bytes)


def _refused(status: Status, *, audited: bool) -> Sequence[Refused]:
    return [
        Refused(denials.reason, denials.mapping, denials.traffic.packets, denials.traffic.bytes)
        for denials in status.all_denied(audited=audited)
    ]


def _health(status: Status) -> Response:
    """200, or 503 with each component that is wrong."""
    code = HTTPStatus.OK if status.healthy else HTTPStatus.SERVICE_UNAVAILABLE
    problems = [{"component": item.component, "message": item.message} for item in status.problems]
    body = json.dumps({"healthy": status.healthy, "problems": problems}).encode() + b"\n"
    return Response(body, status=code)


def _open(endpoint: Endpoint) -> socket.socket:
    """A listening socket; `*` is every address of both families."""
    if endpoint.address is None:
        return socket.create_server(("", endpoint.port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    return socket.create_server((str(endpoint.address), endpoint.port), family=family)
