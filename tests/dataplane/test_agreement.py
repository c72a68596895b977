"""When the kernel and the policy say the same, and when it is loud that they do not."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.agreement import KernelAnswer, agrees
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query, evaluate
from marchproxy.policy.plan import Plan
from tests.dataplane.plans import backend, listener, plan, rule

SERVED = plan(
    listener(
        80, rule(backend(8080, "10.2.0.2"), backend(8080, "10.2.0.3"), sources=("net",)), address="10.1.0.1"
    ),
    listener(81, rule(sources=("net",), reason=Reason.DENY_MAPPING), address="10.1.0.1"),
    sources={"net": "10.1.0.0/24"},
)
BACKEND = Endpoint(ip_address("10.2.0.3"), 8080)
ALLOW = KernelAnswer(Verdict.ALLOW, Reason.FORWARDED, "m", "eth0", BACKEND)
DENY = KernelAnswer(Verdict.DENY, Reason.DENY_MAPPING, "m", "eth0")
HOST = KernelAnswer(Verdict.HOST, Reason.PASSED_TO_HOST, "", "eth0")


def ask(port: int, served: Plan = SERVED) -> Answer:
    own = ip_address("10.1.0.1")
    return evaluate(served, Query(ip_address("10.1.0.9"), own, port, Transport.TCP, frozenset({own})))


@pytest.mark.parametrize(
    ("port", "kernel", "same"),
    [
        (80, ALLOW, True),
        (80, replace(ALLOW, backend=Endpoint(BACKEND.address, 8081)), False),
        (80, replace(ALLOW, mapping="other"), False),
        (80, DENY, False),
        (80, HOST, False),
        (80, replace(ALLOW, verdict=Verdict.AUDIT), False),
        (81, DENY, True),
        (81, replace(DENY, reason=Reason.NO_MAPPING), False),
        (81, ALLOW, False),
        (82, HOST, True),
        (82, replace(DENY, reason=Reason.NO_MAPPING, mapping=""), False),
        (80, KernelAnswer(Verdict.DENY, Reason.NO_ROUTE, "m", "eth0"), True),
    ],
)
def test_same_verdict_reason_mapping_and_backend(port: int, kernel: KernelAnswer, same: bool) -> None:
    assert agrees(SERVED, ask(port), kernel) is same


def test_what_policy_cannot_know_is_a_circumstance() -> None:
    assert KernelAnswer(Verdict.DENY, Reason.NO_ROUTE, "", "eth0").is_circumstance
    assert not DENY.is_circumstance
    assert not ALLOW.is_circumstance


def test_what_user_space_admits_the_programs_pass_up() -> None:
    asks = rule(backend(8080, "10.2.0.2"), sources=("net",), reason=Reason.AUTH_MISSING)
    served = plan(listener(80, asks, address="10.1.0.1"), sources={"net": "10.1.0.0/24"})
    assert not agrees(served, ask(80, served), HOST)
    admitted = replace(served, admitted=frozenset({served.listeners[0].key}))
    assert agrees(admitted, ask(80, admitted), HOST)
    assert not agrees(admitted, ask(80, admitted), ALLOW)
