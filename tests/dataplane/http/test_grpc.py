"""What is particular about gRPC."""

import pytest

from marchproxy.dataplane.http.grpc import DeadlinePassed, failure, is_call, timeout_of, trailers_of
from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason


def request(kind: str, version: str = "2", timeout: str | None = None) -> Request:
    fields = [("content-type", kind)]
    if timeout is not None:
        fields.append(("grpc-timeout", timeout))
    return Request("POST", "h", "h", "/a.B/C", "/a.B/C", tuple(fields), None, version)


@pytest.mark.parametrize(
    ("kind", "version", "expected"),
    [
        ("application/grpc", "2", True),
        ("application/grpc", "3", True),
        ("application/grpc+proto", "2", True),
        ("application/grpc;charset=x", "2", True),
        ("application/grpc-web", "2", False),
        ("application/grpcx", "2", False),
        ("application/json", "2", False),
        ("application/grpc", "1.1", False),
    ],
)
def test_calls_are_told_by_their_type(kind: str, version: str, expected: bool) -> None:
    assert is_call(request(kind, version)) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("10S", 10.0),
        ("1500m", 1.5),
        ("1u", 1e-6),
        ("1n", 1e-9),
        ("123456789S", None),
        ("S", None),
        ("-1S", None),
        ("1s", None),
        (None, None),
    ],
)
def test_deadlines(said: str | None, expected: float | None) -> None:
    assert timeout_of(request("application/grpc", timeout=said)) == expected


def test_failures_have_trailers_only() -> None:
    response = failure(Unfit(Reason.NO_BACKEND, "50% d\u00f6wn\n"))
    assert (response.status, response.bodiless, response.length) == (200, True, None)
    fields = dict(response.fields)
    assert fields["grpc-status"] == "14"
    assert fields["grpc-message"] == "NO_BACKEND: 50%25 d%C3%B6wn%0A"
    assert fields["x-marchproxy-reason"] == "NO_BACKEND"


def test_every_reason_has_a_status() -> None:
    assert {dict(trailers_of(Unfit(reason)))["grpc-status"] for reason in Reason} == {
        "7",
        "12",
        "13",
        "14",
        "16",
    }
    assert dict(trailers_of(DeadlinePassed()))["grpc-status"] == "4"
