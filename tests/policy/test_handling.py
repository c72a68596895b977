"""What mappings say about their requests."""

import pickle

from marchproxy.policy.handling import handling_of
from marchproxy.policy.plan import DEFAULT_HANDLING
from tests.policy import build
from tests.policy.build import mapping, service

SERVICES = service("lan", "10.1.0.0/16"), service("web", "10.2.0.1", port=80)


def test_who_says_nothing_has_the_default_itself() -> None:
    plain = mapping("www", "lan", "web", "10.1.0.1:80", "http")
    assert handling_of(plain) is DEFAULT_HANDLING


def test_each_field_arrives() -> None:
    made = handling_of(
        mapping(
            "www",
            "lan",
            "web",
            "10.1.0.1:80",
            "http",
            connect_timeout=2,
            response_timeout=600,
            idle_timeout=30,
            retry_on=["504", "reset"],
            retry_budget=50,
            eject_after=0,
            eject_for=60,
            eject_most=100,
            max_requests=7,
            max_waiting=3,
        )
    )
    assert (made.connect, made.response, made.idle) == (2, 600, 30)
    assert made.retry_on == {"reset", "504"}
    assert (made.retry_budget, made.eject_after, made.eject_for, made.eject_most) == (0.5, 0, 60.0, 1.0)
    assert (made.max_requests, made.max_waiting) == (7, 3)


def test_what_is_said_about_requests_has_them_read() -> None:
    plain = mapping("www", "lan", "web", "10.1.0.1:80", "http")
    said = mapping("www", "lan", "web", "10.1.0.1:80", "http", max_requests=5)
    for each, reads in ((plain, False), (said, True)):
        plan = build.plan(*SERVICES, each)
        [listener] = plan.listeners
        assert (listener.reads_http, bool(plan.admitted)) == (reads, reads)
        # So it is in another process, where the default is another object.
        [same] = pickle.loads(pickle.dumps(plan.listeners))  # noqa: S301
        assert same.reads_http is reads
