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
        ({"auth_required": True}, None),
        ({"auth_required": True, "action": "deny"}, Reason.DENY_MAPPING),
        ({"protocols": "http", "host": "x.example.com"}, Reason.NOT_CARRIED),
        ({"protocols": "http", "path_prefix": "/x", "action": "deny"}, Reason.NOT_CARRIED),
        ({"protocols": "http", "host": "x.example.com", "listen": "*:80"}, None),
        ({"protocols": "http", "host": "x.example.com", "listen": "*:80", "sni": True}, Reason.NOT_CARRIED),
        ({"sni": True}, None),
        ({"sni": True, "action": "deny"}, Reason.NOT_CARRIED),
    ],
)
def test_the_reason(fields: dict[str, Any], reason: Reason | None) -> None:
    found = refusal_of(mapping("m", "all", "all", **fields))
    assert (found.reason if found else None) is reason


def test_a_plain_deny_surprises_nobody() -> None:
    found = refusal_of(mapping("m", "all", "all", action="deny"))
    assert found is not None
    assert found.surprise == ""


def test_what_a_credential_opens_is_no_surprise() -> None:
    found = credential_wanted(("vault", "web"))
    assert (found.reason, found.surprise, found.credentials) == (Reason.AUTH_MISSING, "", ("vault", "web"))


def test_where_nobody_has_a_credential_it_says_how_to_give_one() -> None:
    found = credential_wanted(())
    assert found.surprise == "wants a credential, and none of its services has any: denied"
    assert "service set NAME --auth token" in found.hint
