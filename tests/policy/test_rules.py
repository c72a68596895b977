"""One mapping: which reason its rule carries, and what the operator is told."""

from typing import Any

import pytest

from marchproxy.model.entities import Mapping, Service
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE
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
    return [text.replace("mapping default/m: ", "") for text in texts(plan(*entities).findings)]


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
            ["warning wants a credential, which is not carried in this version: denied"],
        ),
        (
            "locked,web",
            {},
            Reason.AUTH_MISSING,
            ["warning wants a credential for default/locked, which is not carried in this version: denied"],
        ),
        (
            "web",
            {"protocols": "http", "host": "x.example.com", "path_prefix": "/x"},
            Reason.NOT_CARRIED,
            ["warning looks at the host and path prefix, which is not carried in this version: denied"],
        ),
        (
            "net",
            {},
            Reason.NO_BACKEND,
            [
                "error cannot send traffic to 10.7.0.0/24 of default/net, a range",
                "error has no IPv4 backend: such clients of 192.0.2.1:80 are denied",
            ],
        ),
        (
            "net,web",
            {},
            Reason.FORWARDED,
            ["warning cannot send traffic to 10.7.0.0/24 of default/net, a range"],
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
                "error cannot use default/web: its port is not among 22,9000",
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


def test_every_address_of_both_families_needs_backends_of_both() -> None:
    assert reasons(*EVERY, mapping("m", "all", "web", "*:80")) == [Reason.FORWARDED, Reason.FORWARDED]
    one_family = mapping("m", "all", "web4", "*:80")
    assert reasons(*EVERY, one_family) == [Reason.FORWARDED, Reason.NO_BACKEND]
    assert told(*EVERY, one_family) == ["warning has no IPv6 backend: such clients of *:80 are denied"]


def test_a_listener_of_the_other_family_can_never_work() -> None:
    wanted = mapping("m", "all", "web4", "[2001:db8::1]:80")
    assert told(*EVERY, wanted) == ["error has no IPv6 backend: such clients of [2001:db8::1]:80 are denied"]


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
        ("office", ("default/office",), ()),
        ("collection:none", (), ()),
        ("external", (ANYONE,), ("default/office", "default/web")),
    ],
)
def test_sources_of_a_rule(sources: str, included: tuple[str, ...], excluded: tuple[str, ...]) -> None:
    rule = plan(OFFICE, WEB, mapping("m", sources, "web", "192.0.2.1:80")).listeners[0].rules[0]
    assert (rule.sources, rule.excluded) == (included, excluded)


def test_external_beside_services_makes_two_rules_with_one_pool() -> None:
    wanted = mapping("m", "external,office", "web", "192.0.2.1:80")
    first, second = plan(OFFICE, WEB, wanted).listeners[0].rules
    assert (first.sources, first.excluded) == ((ANYONE,), ("default/office", "default/web"))
    assert (second.sources, second.excluded) == (("default/office",), ())
    assert first.pool is second.pool


def test_references_to_nothing_are_told() -> None:
    assert told(WEB, mapping("m", "ghost,collection:none", "web", "192.0.2.1:80")) == [
        "error names service ghost, which does not exist",
        "warning names collection:none, to which no service belongs",
    ]


@pytest.mark.parametrize(("listen", "protocols", "captured"), [("*:22", "tcp", True), ("*:22", "udp", False)])
def test_the_management_port_cannot_be_captured(listen: str, protocols: str, captured: bool) -> None:
    finding = "error listens on 22/tcp and would capture the management port"
    assert (finding in told(WEB, mapping("m", "all", "web", listen, protocols))) is captured


@pytest.mark.parametrize(
    ("action", "hint"), [("allow", "give it a listen address"), ("deny", "does not bear on")]
)
def test_a_mapping_without_listen_address_is_said_to_be_denied(action: str, hint: str) -> None:
    made = plan(OFFICE, WEB, mapping("m", "office", "web", action=action))
    assert made.listeners == ()
    assert texts(made.findings) == [
        "warning mapping default/m: has no listen address: "
        "routed traffic is not carried in this version: denied"
    ]
    assert hint in made.findings[0].hint


def test_waiting_for_a_name_is_said_with_the_name() -> None:
    made = plan(NAMED, mapping("m", "all", "named", "192.0.2.1:80"))
    assert [finding.hint for finding in made.findings] == ["waiting for n.example.com"]
