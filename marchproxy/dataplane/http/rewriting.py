"""Requests and answers as the actions of a mapping make them (`policy.actions`)."""

from dataclasses import replace
from http import HTTPStatus

from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason
from marchproxy.policy.actions import Actions, act


def for_backend(request: Request, actions: Actions | None) -> Request:
    """The request that a backend gets. What it is told about the client is what the client asked."""
    if actions is None:
        return request
    if actions.path is None and not (actions.host or actions.request):
        return request
    return replace(
        request,
        target=actions.target(request.target, request.path),
        authority=actions.host or request.authority,
        fields=act(actions.request, request.fields) if actions.request else request.fields,
        encoded=b"",
    )


def vouched(request: Request, proven: Fields, service: str) -> Request:
    """The request with what its client has proven: fields about its certificate, and the service whose
    credential opened the route (empty: none did).
    """
    fields = (*request.fields, *proven)
    if service:
        # It was for us: what opens a door here is not for who is behind it.
        kept = [each for each in fields if each[0] != "authorization"]
        fields = (*kept, ("x-marchproxy-service", service))
    return replace(request, fields=fields, encoded=b"") if proven or service else request


def for_client(response: Response, actions: Actions, cookie: str = "") -> Response:
    """The answer that a client gets, with a cookie of ours if there is one."""
    if not (actions.response or cookie):
        return response
    fields = act(actions.response, response.fields)
    return replace(response, fields=(*fields, ("set-cookie", cookie)) if cookie else fields, encoded={})


def redirection(request: Request, actions: Actions | None) -> tuple[Response, bytes] | None:
    """The answer that leads elsewhere, and its body; None: nowhere else. Raises `Unfit` where there is no
    host to lead to.
    """
    if actions is None or not actions.redirect:
        return None
    if "{host}" in actions.redirect and not request.host:
        raise Unfit(Reason.MALFORMED, "the request names no host, which it would be led to")
    status = HTTPStatus(actions.status)
    location = actions.location(request.host, request.target, request.path)
    body = f"{status.value} {status.phrase}\n\nThis is found at {location}\n".encode()
    fields = (
        ("location", location),
        ("content-type", "text/plain; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
    )
    return for_client(Response(status.value, status.phrase, fields, len(body)), actions), body
