"""Requests that come before their client's handshake is complete (RFC 8470)."""

from dataclasses import replace

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.policy.plan import Rule

EARLY_DATA = "early-data"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of which once more does nothing (RFC 9110 section 9.2.1), but for TRACE."""


def may_hasten(visitor: Visitor, request: Request) -> bool:
    """Whether a request without body goes on at once. Others wait until the handshake is complete, which
    shows that they are not said again (section 3); among them is what brings a credential, or needs one.
    """
    if request.method not in _SAFE or any(name == "authorization" for name, _ in request.fields):
        return False
    answer = visitor.answer(request.host, request.path, request)
    rule = answer.rule
    allowed = isinstance(rule, Rule) and rule.handling.early_data and answer.verdict.lets_through
    return allowed and not answer.openers


def hastened(request: Request) -> Request:
    """The request as it goes on at once, whatever its client says of it (section 5.1)."""
    fields = tuple([each for each in request.fields if each[0] != EARLY_DATA])
    return replace(request, fields=(*fields, (EARLY_DATA, "1")), early=True)
