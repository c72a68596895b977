"""One mapping: which reason its rule carries, and what the operator is told."""

from typing import Any

import pytest

from marchproxy.model.entities import Balance, Mapping, Service
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE, Backend, Listener
from tests.policy.build import mapping, plan, service, texts

OFFICE = service("office", "10.0.0.0/16")
WEB = service("web", "10.1.0.1", "2001:db8:1::1", port=8080)
WEB4 = service("web4", "10.1.0.4")
LOCKED = service("locked", "10.1.0.2", auth="token")
NET = service("net", "10.7.0.0/24")
NAMED = service("named", "n.example.com")
EVERY = (OFFICE, WEB, WEB4, LOCKED, NET, NAMED)


def reasons(*entities: Service | Mapping) -> list[Reason]:
    """The reason of each rule, in the order of listeners."""
    return [rule.reason for listener in plan(*entities).listeners for rule in listener.rules]


def told(*entities: Service | Mapping) -> list[str]:
    """The findings, shortened by the subject they all have."""
    return [text.replace("mapping m: ", "") for text in texts(plan(*entities).findings)]


@pytest.mark.parametrize(
    ("destinations", "fields", "expected", "finding"),
    [
        ("web", {}, Reason.FORWARDED, []),
        ("web", {"action": "deny"}, Reason.DENY_MAPPING, []),
        ("all", {"action": "deny"}, Reason.DENY_MAPPING, []),
        (
            "web",
            {"auth_required": True},
            Reason.AUTH_MISSING,
            ["warning wants a credential, and none of its services has any: denied"],
        ),
        (
            "locked,web",
            {},
            Reason.AUTH_MISSING,
            [],
        ),
        (
            "web",
            {"protocols": "http", "host": "x.example.com", "path_prefix": "/x"},
            Reason.FORWARDED,
            [],
        ),
        (
            "web",
            {"protocols": "https", "host": "x.example.com", "path_prefix": "/x", "sni": True},
            Reason.NOT_CARRIED,
            [
                "warning looks at the TLS name, and none of its destinations has a host name: denied",
                "warning looks at the host and path prefix, which traffic that passes does not show: denied",
            ],
        ),
        (
            "net",
            {},
            Reason.NO_BACKEND,
            [
                "error cannot send traffic to 10.7.0.0/24 of net, a range",
                "error has no IPv4 backend: such clients of 192.0.2.1:80 are denied",
            ],
        ),
        (
            "net,web",
            {},
            Reason.FORWARDED,
            ["warning cannot send traffic to 10.7.0.0/24 of net, a range"],
        ),
        (
            "all",
            {},
            Reason.NO_BACKEND,
            [
                "error cannot send traffic to all or external: a listener needs services as destinations",
                "error has no IPv4 backend: such clients of 192.0.2.1:80 are denied",
            ],
        ),
        (
            "external,web",
            {},
            Reason.FORWARDED,
            ["warning cannot send traffic to all or external: a listener needs services as destinations"],
        ),
        (
            "named",
            {},
            Reason.NO_BACKEND,
            ["warning has no IPv4 backend: such clients of 192.0.2.1:80 are denied"],
        ),
        (
            "web",
            {"ports": "8000-8100"},
            Reason.FORWARDED,
            ["warning lists 8000-8100 for one listen port: each backend is asked on its own"],
        ),
        (
            "web",
            {"ports": "22,9000"},
            Reason.NO_BACKEND,
            [
                "error cannot use web: its port is not among 22,9000",
                "error has no IPv4 backend: such clients of 192.0.2.1:80 are denied",
            ],
        ),
    ],
)
def test_the_reason_and_what_is_said_about_it(
    destinations: str, fields: dict[str, Any], expected: Reason, finding: list[str]
) -> None:
    wanted = mapping("m", "all", destinations, "192.0.2.1:80", **fields)
    assert reasons(*EVERY, wanted) == [expected]
    assert told(*EVERY, wanted) == finding


def test_a_refusing_rule_has_no_pool() -> None:
    made = plan(*EVERY, mapping("m", "all", "web", "192.0.2.1:80", auth_required=True))
    assert made.listeners[0].rules[0].pool is None


def listeners(*entities: Service | Mapping) -> dict[str, list[Reason]]:
    """The reasons of each listener's rules."""
    return {str(listener): [rule.reason for rule in listener.rules] for listener in plan(*entities).listeners}


def test_every_address_is_listened_on_in_the_families_that_have_backends() -> None:
    both = {"0.0.0.0:80/tcp": [Reason.FORWARDED], "[::]:80/tcp": [Reason.FORWARDED]}
    assert listeners(*EVERY, mapping("m", "all", "web", "*:80")) == both
    one_family = mapping("m", "all", "web4", "*:80")
    assert listeners(*EVERY, one_family) == {"0.0.0.0:80/tcp": [Reason.FORWARDED]}
    assert told(*EVERY, one_family) == []


def test_a_family_without_backends_joins_what_others_open() -> None:
    one_family = mapping("a", "office", "web4", "*:80")
    assert listeners(*EVERY, one_family, mapping("b", "all", "web", "[::]:80")) == {
        "0.0.0.0:80/tcp": [Reason.FORWARDED],
        "[::]:80/tcp": [Reason.NO_BACKEND, Reason.FORWARDED],
    }
    assert list(listeners(*EVERY, one_family, mapping("b", "all", "web4", "*:80"))) == ["0.0.0.0:80/tcp"]
    denying = mapping("b", "all", "web4", "*:80", action="deny")
    assert listeners(*EVERY, one_family, denying)["[::]:80/tcp"] == [Reason.DENY_MAPPING, Reason.NO_BACKEND]


@pytest.mark.parametrize(
    ("destinations", "finding"),
    [
        ("named", ["warning has no IPv4 or IPv6 backend: such clients of *:80 are denied"]),
        (
            "net",
            [
                "error cannot send traffic to 10.7.0.0/24 of net, a range",
                "error has no IPv4 or IPv6 backend: such clients of *:80 are denied",
            ],
        ),
    ],
)
def test_without_any_backend_both_families_refuse(destinations: str, finding: list[str]) -> None:
    wanted = mapping("m", "all", destinations, "*:80")
    assert list(listeners(*EVERY, wanted).values()) == [[Reason.NO_BACKEND], [Reason.NO_BACKEND]]
    assert told(*EVERY, wanted) == finding


@pytest.mark.parametrize(
    ("protocols", "listeners"),
    [
        ("tcp", ["192.0.2.1:80/tcp"]),
        ("http,https,grpc", ["192.0.2.1:80/tcp"]),
        ("quic", ["192.0.2.1:80/udp"]),
        ("udp,tcp", ["192.0.2.1:80/tcp", "192.0.2.1:80/udp"]),
    ],
)
def test_protocols_become_the_transports_that_carry_them(protocols: str, listeners: list[str]) -> None:
    made = plan(*EVERY, mapping("m", "all", "web", "192.0.2.1:80", protocols))
    assert [str(listener) for listener in made.listeners] == listeners


@pytest.mark.parametrize(
    ("sources", "included", "excluded"),
    [
        ("all", (ANYONE,), ()),
        ("all,office", (ANYONE,), ()),
        ("office", ("office",), ()),
        ("collection:none", (), ()),
        ("external", (ANYONE,), ("office", "web")),
    ],
)
def test_sources_of_a_rule(sources: str, included: tuple[str, ...], excluded: tuple[str, ...]) -> None:
    rule = plan(OFFICE, WEB, mapping("m", sources, "web", "192.0.2.1:80")).listeners[0].rules[0]
    assert (rule.sources, rule.excluded) == (included, excluded)


def test_external_beside_services_makes_two_rules_with_one_pool() -> None:
    wanted = mapping("m", "external,office", "web", "192.0.2.1:80")
    first, second = plan(OFFICE, WEB, wanted).listeners[0].rules
    assert (first.sources, first.excluded) == ((ANYONE,), ("office", "web"))
    assert (second.sources, second.excluded) == (("office",), ())
    assert first.pool is second.pool


def test_the_strategy_is_that_of_the_mapping() -> None:
    wanted = mapping("m", "office", "web", "192.0.2.1:80", balance="least-connections")
    assert plan(OFFICE, WEB, wanted).listeners[0].rules[0].balance is Balance.LEAST_CONNECTIONS
    assert (
        plan(OFFICE, WEB, mapping("m", "office", "web", "*:80")).listeners[0].rules[0].balance
        is Balance.MAGLEV
    )


def test_every_port_of_a_range_leads_to_the_port_of_the_service_by_the_same_rule() -> None:
    made = plan(WEB, mapping("m", "all", "web", "*:9000-9499", protocols="tcp,udp"))
    assert len(made.listeners) == 500 * 2 * 2
    assert len({id(each.rules[0]) for each in made.listeners}) == 2
    assert {backend.port for each in made.listeners for backend in _backends(each)} == {8080}


def test_the_only_port_of_a_mapping_is_where_all_of_a_range_leads() -> None:
    made = plan(WEB4, mapping("m", "all", "web4", "192.0.2.1:9000-9499", ports="80"))
    assert len({id(each.rules[0]) for each in made.listeners}) == 1
    assert {backend.port for each in made.listeners for backend in _backends(each)} == {80}


def test_without_a_port_each_of_a_range_leads_to_the_same_one() -> None:
    made = plan(WEB4, WEB, mapping("m", "all", "web4,web", "192.0.2.1:9000-9499"))
    assert [each.port for each in made.listeners] == list(range(9000, 9500))
    for each in made.listeners:
        assert [backend.port for backend in _backends(each)] == [8080, each.port]


def test_a_port_of_a_range_may_have_mappings_of_its_own_too() -> None:
    made = plan(
        WEB,
        mapping("m", "all", "web", "192.0.2.1:9000-9009"),
        mapping("no", "all", "web", "192.0.2.1:9005", action="deny"),
    )
    denied = {each.port for each in made.listeners if each.rules[0].reason is Reason.DENY_MAPPING}
    assert (len(made.listeners), denied) == (10, {9005})


def test_a_range_wants_its_credential_at_each_port() -> None:
    made = plan(LOCKED, mapping("m", "all", "locked", "192.0.2.1:9000-9499"))
    assert made.admitted == {each.key for each in made.listeners}
    assert made.carried == ()


def _backends(listener: Listener) -> tuple[Backend, ...]:
    pool = listener.rules[0].pool
    assert pool is not None
    return pool.backends
