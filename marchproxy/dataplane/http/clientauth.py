"""Certificates of clients, asked of each request: what a mapping wants, and what its connection has shown.

A connection is asked for one kind of certificate in its handshake, by the name that it gives there. A request
on it that is for a mapping with another CA is sent away with 421 (RFC 9110 section 15.5.20): whatever was
shown was checked against the wrong authority, and the client shall connect again for that host.
"""

from http import HTTPStatus

from marchproxy.dataplane.credentials.clientcerts import Shown
from marchproxy.dataplane.http.messages import Fields
from marchproxy.dataplane.proxy.protocol.http_head import HttpUnfit
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Handling


def prove(handling: Handling, shown: Shown) -> Fields:
    """What a backend is told about who asks. Raises `HttpUnfit` where another certificate is wanted."""
    if handling.client is None:
        return ()
    if shown.asked != handling.client:
        detail = (
            "this host wants a certificate of clients that this connection was not asked for: connect anew"
        )
        raise HttpUnfit(HTTPStatus.MISDIRECTED_REQUEST, Reason.SNI_MISMATCH, detail)
    if shown.peer is None:
        detail = "a certificate of the client is wanted here, and none was shown, or it has expired"
        raise HttpUnfit(HTTPStatus.FORBIDDEN, Reason.AUTH_MISSING, detail)
    if not shown.peer.fits(handling.client_names):
        detail = "the certificate of the client has no name that is let in here"
        raise HttpUnfit(HTTPStatus.FORBIDDEN, Reason.AUTH_INVALID, detail)
    return shown.peer.fields
