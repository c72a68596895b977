"""When a name is asked again."""

from ipaddress import ip_address

from marchproxy.dataplane.names.following import (
    FIRST_RETRY,
    HALF_RETRY,
    LAST_RETRY,
    SILENT_RETRY,
    Following,
)
from marchproxy.dataplane.names.found import Failure, Found

GOOD = Found((ip_address("192.0.2.1"),), 600.0)


def test_a_good_answer_holds_for_its_ttl() -> None:
    state = Following()
    assert state.answered(GOOD, {}) == 600
    assert (state.failure, state.ttl) == (None, 600)
    assert state.since > 0


def test_half_an_answer_is_asked_for_again_soon() -> None:
    assert Following().answered(Found(GOOD.addresses, 600, frozenset({6})), {}) == HALF_RETRY


def test_retries_become_rare_up_to_a_limit() -> None:
    state = Following()
    waits = [state.failed(Failure.NXDOMAIN) for _ in range(12)]
    assert waits[:3] == [FIRST_RETRY, FIRST_RETRY * 2, FIRST_RETRY * 4]
    assert waits[-1] == LAST_RETRY
    assert state.asked.is_set()


def test_a_resolver_at_fault_is_tried_more_often() -> None:
    state = Following()
    assert max(state.failed(Failure.TIMEOUT) for _ in range(40)) == SILENT_RETRY


def test_a_negative_answer_holds_for_as_long_as_it_says() -> None:
    assert Following().failed(Failure.NXDOMAIN, 60) == 60
    assert Following().failed(Failure.SERVFAIL, 60) == FIRST_RETRY


def test_since_when_is_the_first_time() -> None:
    state = Following()
    state.failed(Failure.TIMEOUT)
    since = state.since = state.since - 100
    state.failed(Failure.NXDOMAIN)
    assert (state.since, state.failure) == (since, Failure.NXDOMAIN)
    state.answered(GOOD, {})
    state.failed(Failure.TIMEOUT)
    assert state.since > since
    assert state.failed(Failure.TIMEOUT) == FIRST_RETRY * 2
