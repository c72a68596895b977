"""What an HTTP client is told when its request goes nowhere."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_answer import MAX_DETAIL, render_refusal, status_of
from marchproxy.dataplane.proxy.protocol.http_head import HttpUnfit
from marchproxy.model.reason import Reason


@pytest.mark.parametrize(
    ("status", "reasons"),
    [
        (407, [Reason.AUTH_MISSING, Reason.AUTH_INVALID, Reason.AUTH_EXPIRED, Reason.AUTH_REVOKED]),
        (403, [Reason.NO_MAPPING, Reason.DENY_MAPPING, Reason.PRIVATE_ADDRESS, Reason.SNI_MISMATCH]),
        (502, [Reason.NAME_UNKNOWN, Reason.UPSTREAM_REFUSED, Reason.NO_ROUTE, Reason.NO_BACKEND]),
        (504, [Reason.UPSTREAM_TIMEOUT]),
        (429, [Reason.RATE_LIMITED]),
        (503, [Reason.FLOW_TABLE_FULL]),
        (400, [Reason.MALFORMED, Reason.UNSUPPORTED]),
        (408, [Reason.TOO_SLOW]),
    ],
)
def test_each_reason_has_the_status_that_clients_expect(status: int, reasons: list[Reason]) -> None:
    for reason in reasons:
        answer = render_refusal(Unfit(reason))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert f"\r\nX-MarchProxy-Reason: {reason.name}\r\n".encode() in answer
        assert (b"\r\nProxy-Authenticate: Bearer " in answer) == (status == 407)
        assert b"\r\nConnection: close\r\n" in answer
        assert b"\r\nCache-Control: no-store\r\n" in answer


def test_a_more_exact_status_wins() -> None:
    unfit = HttpUnfit(HTTPStatus.REQUEST_URI_TOO_LONG, Reason.MALFORMED, "long")
    assert status_of(unfit) is HTTPStatus.REQUEST_URI_TOO_LONG


def test_a_person_learns_what_happened_and_whom_to_ask() -> None:
    answer = render_refusal(Unfit(Reason.NO_MAPPING, "web may not reach it"), "example.com:443").decode()
    body = answer.partition("\r\n\r\n")[2]
    assert body == (
        "MarchProxy: no connection for example.com:443.\n\n"
        "Reason: NO_MAPPING: no mapping allows it\n"
        "Detail: web may not reach it\n\n"
        "If you need this access, ask whoever runs this proxy for it, and send them these lines.\n"
    )


@given(st.sampled_from(Reason), st.text(), st.text())
def test_no_detail_gets_out_of_its_line(reason: Reason, detail: str, asked: str) -> None:
    head, _, body = render_refusal(Unfit(reason, detail), asked).partition(b"\r\n\r\n")
    plain, _, plain_body = render_refusal(Unfit(reason)).partition(b"\r\n\r\n")
    assert [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")] == [
        line for line in plain.split(b"\r\n") if not line.startswith(b"Content-Length")
    ]
    assert len(body.splitlines()) == len(plain_body.splitlines()) + bool(detail)
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head + b"\r\n"


def test_a_detail_is_cut() -> None:
    assert b"x" * MAX_DETAIL + b"\n" in render_refusal(Unfit(Reason.CUT, "x" * 10_000))
