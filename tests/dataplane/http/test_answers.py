"""What clients are told."""

import pytest

from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.AUTH_MISSING, 401),
        (Reason.DENY_MAPPING, 403),
        (Reason.BLOCKED_DESTINATION, 403),
        (Reason.NO_MAPPING, 404),
        (Reason.RATE_LIMITED, 429),
        (Reason.UPSTREAM_REFUSED, 502),
        (Reason.TLS_FAILED, 502),
        (Reason.NO_BACKEND, 503),
        (Reason.UPSTREAM_TIMEOUT, 504),
    ],
)
def test_the_status_and_the_reason(reason: Reason, status: int) -> None:
    response, body = refusal(Unfit(reason, "why\x1b\n"))
    fields = dict(response.fields)
    assert response.status == status
    assert response.length == len(body)
    assert fields["x-marchproxy-reason"] == reason.name
    assert ("www-authenticate" in fields) is (status == 401)
    assert b"Detail: why??\n" in body
    assert reason.meaning in body.decode()
