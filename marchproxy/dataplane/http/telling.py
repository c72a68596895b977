"""An exchange as a record, for who wants to know of requests."""

import time
from typing import Protocol

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.tracing import traceparent_of
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.records import Exchanged
from marchproxy.model.endpoint import Endpoint
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import Rule


class Told(Protocol):
    """What is asked of an exchange."""

    request: Request
    began: float
    connected: float
    responded: float
    status: int
    attempts: int
    received_bytes: int

    @property
    def sent_bytes(self) -> int:
        """Of the request's body."""

    @property
    def id(self) -> str:
        """What it is known by."""

    @property
    def copied(self) -> str:
        """The service that gets a copy."""


def exchanged(told: Told, conversation: Conversation | None, answer: Answer, tls: str) -> Exchanged:
    """As it is now, which is its end."""
    request, began, now = told.request, told.began, time.monotonic()
    # A conversation remembers the backend of an earlier request, too.
    backend = conversation.backend if conversation and told.connected else None
    return Exchanged(
        method=request.method,
        path=request.path,
        version=request.version,
        tls=tls,
        status=told.status,
        backend=str(Endpoint(backend.address, backend.port)) if backend else "",
        service=backend.service if backend else "",
        route=_route(answer),
        request_id=told.id,
        traceparent=traceparent_of(request.fields),
        sent=told.sent_bytes,
        received=told.received_bytes,
        attempts=told.attempts,
        connected=max(told.connected - began, 0.0) if told.connected else 0.0,
        waited=(told.responded or now) - began,
        took=now - began,
        mirror=told.copied,
        early_data=request.early,
    )


def _route(answer: Answer) -> str:
    route = answer.rule.route if isinstance(answer.rule, Rule) else None
    return f"{route.host}{route.path}" if route else ""
