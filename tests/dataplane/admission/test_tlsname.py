"""What a hello's name comes to."""

import pytest

from marchproxy.dataplane.admission.tlsname import refusal
from marchproxy.dataplane.proxy.protocol.exchange import Request, Speech
from marchproxy.model.entities import WithoutSni
from marchproxy.model.reason import Reason

DENY, ALLOW, ADDRESS = WithoutSni.DENY, WithoutSni.ALLOW, WithoutSni.ADDRESS


@pytest.mark.parametrize(
    ("name", "ech", "without", "by_address", "expected"),
    [
        ("right.test", False, DENY, False, None),
        ("wrong.test", False, ALLOW, True, Reason.SNI_MISMATCH),
        ("wrong.test", True, ALLOW, True, Reason.SNI_MISMATCH),
        ("right.test", True, DENY, True, Reason.SNI_MISSING),
        ("right.test", True, ALLOW, False, None),
        ("right.test", True, ADDRESS, True, None),
        (None, False, DENY, True, Reason.SNI_MISSING),
        (None, False, ALLOW, False, None),
        (None, False, ADDRESS, True, None),
        (None, False, ADDRESS, False, Reason.SNI_MISSING),
    ],
)
def test_names_that_are_shown_hidden_or_missing(
    name: str | None, ech: bool, without: WithoutSni, by_address: bool, expected: Reason | None
) -> None:
    hello = Request(Speech.TLS, name, None, secure=True, ech=ech)
    found = refusal(hello, without, lambda name: name == "right.test", lambda: by_address)
    assert found is expected
