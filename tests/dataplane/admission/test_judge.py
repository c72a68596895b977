"""Policy first, then credentials; and failures cost time."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.judge import Judge, opened_by
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.credentials.limiter import FAILURES
from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.model.entities import Mapping
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.tunnels import Wish
from tests.dataplane.admission.desk import OLD, TOKEN, Keys
from tests.policy.build import mapping, plan, service

CLIENT = ip_address("10.0.0.1")
WISH = Wish(CLIENT, "", ip_address("198.51.100.1"), 443)
LAN = service("lan", "10.0.0.0/8")
VAULT = service("vault", "198.51.100.1", auth="token")


def judge(*mappings: Mapping) -> tuple[Judge, Keys]:
    keys = Keys()
    made = Judge(Ledger(), keys, lambda _: False)
    made.adopt(plan(LAN, VAULT, *(mappings or (mapping("m", "lan", "vault"),))), 1)
    return made, keys


def check(made: Judge, secret: str | None, service: str | None = None) -> Verified | Reason | None:
    presented = None if secret is None else Presented(secret, service)
    return made.check(made.tunnel(WISH), presented, CLIENT)


@pytest.mark.parametrize(
    ("secret", "claimed", "expected"),
    [
        (TOKEN, None, "vault"),
        (TOKEN, "vault", "vault"),
        (TOKEN, "other", Reason.AUTH_INVALID),
        ("wrong", None, Reason.AUTH_INVALID),
        (OLD, None, Reason.AUTH_EXPIRED),
        (None, None, Reason.AUTH_MISSING),
    ],
)
def test_what_a_credential_comes_to(secret: str | None, claimed: str | None, expected: str | Reason) -> None:
    made, keys = judge()
    found = check(made, secret, claimed)
    assert (found.service if isinstance(found, Verified) else found) == expected
    assert keys.used == (["1"] if expected == "vault" else [])


def test_nothing_is_asked_where_nothing_is_wanted() -> None:
    made, _ = judge(mapping("m", "lan", "vault", action="deny"))
    assert check(made, TOKEN) is None


def test_audit_lets_in_who_has_none() -> None:
    made, _ = judge(mapping("m", "lan", "vault", audit=True))
    assert check(made, None) is None
    assert isinstance(check(made, TOKEN), Verified)


def test_guessing_ends_after_some_failures_and_for_this_source_only() -> None:
    made, _ = judge()
    for _ in range(FAILURES):
        assert check(made, "guess") is Reason.AUTH_INVALID
    assert check(made, TOKEN) is Reason.RATE_LIMITED
    assert check(made, None) is Reason.AUTH_MISSING
    other = replace(WISH, source=ip_address("10.0.0.2"))
    assert isinstance(made.check(made.tunnel(other), Presented(TOKEN), other.source), Verified)


def test_one_request_fails_once_however_many_addresses_it_is_about() -> None:
    made, _ = judge()
    answers = [made.tunnel(WISH)] * 16
    for _ in range(FAILURES):
        assert made.check_all(answers, Presented("guess"), CLIENT) == [Reason.AUTH_INVALID] * 16
    assert made.check_all(answers, Presented(TOKEN), CLIENT) == [Reason.RATE_LIMITED] * 16


def test_what_was_opened_may_go_on_while_its_service_opens_it() -> None:
    made, _ = judge()
    answer, mine = made.tunnel(WISH), Verified("vault", "1", None)
    assert made.keeps(answer, mine)
    assert not made.keeps(answer, Verified("other", "2", None))
    assert not made.keeps(answer, None)


def test_an_answer_that_was_opened_allows() -> None:
    made, _ = judge()
    answer = made.tunnel(WISH)
    assert (answer.verdict, answer.reason) == (Verdict.DENY, Reason.AUTH_MISSING)
    opened = opened_by(answer, Verified("vault", "1", None))
    assert (opened.verdict, opened.reason, opened.mapping) == (Verdict.ALLOW, Reason.FORWARDED, "m")
    assert opened_by(answer, None) is answer
    assert isinstance(answer, Answer)
