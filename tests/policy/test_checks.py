"""What health checks are told to look after."""

from ipaddress import ip_address

import pytest

from marchproxy.model.entities import Service
from marchproxy.policy.checks import FALL, INTERVAL, RISE, TIMEOUT, BackendKey, Check, Watched
from tests.policy.build import mapping, plan, service

FRONT = mapping("front", "all", "web", "192.0.2.1:80")


def watched(*services: Service, **options: object) -> tuple[Watched, ...]:
    """What the plan of these and `FRONT` wants looked after."""
    return plan(*services, FRONT, **options).watched


def test_a_check_has_the_services_numbers_or_the_defaults() -> None:
    (plain,) = watched(service("web", "10.1.0.1", health="tcp"))
    assert plain.check == Check("tcp", "", "10.1.0.1", INTERVAL, TIMEOUT, RISE, FALL)
    own = {"health_interval": 7, "health_timeout": 3, "health_rise": 4, "health_fall": 9}
    (detailed,) = watched(service("web", "10.1.0.1", health="https:/up?x=1:2", **own))
    assert detailed.check == Check("https", "/up?x=1:2", "10.1.0.1", 7, 3, 4, 9)


def test_each_backend_is_watched_on_the_port_that_it_is_asked_on() -> None:
    web = service("web", "10.1.0.1", "2001:db8::1", "10.9.0.0/24", port=8080, health="tcp")
    other = mapping("other", "all", "web", "*:81", ports="9000")
    found = plan(web, FRONT, mapping("same", "all", "web", "192.0.2.2:80"), other).watched
    assert {item.backend for item in found} == {
        BackendKey("web", ip_address(address), port)
        for address in ("10.1.0.1", "2001:db8::1")
        for port in (8080, 9000)
    }
    assert len(found) == 4


def test_a_ping_asks_no_port() -> None:
    found = plan(
        service("web", "10.1.0.1", health="icmp"), FRONT, mapping("b", "all", "web", "192.0.2.1:81")
    ).watched
    assert {item.backend for item in found} == {BackendKey("web", ip_address("10.1.0.1"), 0)}


def test_http_asks_for_the_first_host_name_that_can_be_asked_for() -> None:
    names = {"a.example.com": [ip_address("10.1.0.7")]}
    (item,) = watched(service("web", "a.example.com", health="http:/"), names=names)
    assert item.check
    assert (item.backend.address, item.check.host) == (ip_address("10.1.0.7"), "a.example.com")


def test_drained_backends_are_watched_with_and_without_a_check() -> None:
    plain = service("web", "10.1.0.1", "10.1.0.2", drain=["10.1.0.2"])
    (item,) = watched(plain)
    assert (item.backend.address, item.check, item.drained) == (ip_address("10.1.0.2"), None, True)
    checked = watched(service("web", "10.1.0.1", "10.1.0.2", drain=["10.1.0.2"], health="tcp"))
    assert [item.drained for item in checked] == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        mapping("front", "all", "web", "192.0.2.1:80", action="deny"),
        mapping("front", "all", "web"),
        mapping("front", "web", "spare", "192.0.2.1:80"),
    ],
    ids=["denied", "routed", "only a source"],
)
def test_what_no_listener_sends_to_is_not_checked(other: object) -> None:
    web, spare = service("web", "10.1.0.1", health="tcp"), service("spare", "10.1.0.2")
    assert plan(web, spare, other).watched == ()  # type: ignore[arg-type]
