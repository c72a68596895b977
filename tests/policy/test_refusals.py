"""What a mapping refuses by itself."""

from typing import Any

import pytest

from marchproxy.model.reason import Reason
from marchproxy.policy.refusals import credential_wanted, refusal_of
from tests.policy.build import mapping


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"action": "deny"}, Reason.DENY_MAPPING),
        ({"auth_required": True}, Reason.AUTH_MISSING),
        ({"auth_required": True, "action": "deny"}, Reason.DENY_MAPPING),
        ({"protocols": "http", "host": "x.example.com"}, Reason.NOT_CARRIED),
        ({"protocols": "http", "path_prefix": "/x", "action": "deny"}, Reason.NOT_CARRIED),
        ({"sni": True}, Reason.NOT_CARRIED),
    ],
)
def test_the_reason(fields: dict[str, Any], reason: Reason | None) -> None:
    found = refusal_of(mapping("m", "all", "all", **fields))
    assert (found.reason if found else None) is reason


def test_a_plain_deny_surprises_nobody() -> None:
    found = refusal_of(mapping("m", "all", "all", action="deny"))
    assert found is not None
    assert found.surprise == ""


def test_many_services_are_counted() -> None:
    names = [f"s{number}" for number in range(10)]
    said = credential_wanted(*names).surprise
    assert said.startswith("wants a credential for s0, s1, s2, s3, s4, s5, s6, s7 and 2 more, which")
