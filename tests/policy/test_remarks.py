"""What is told about one mapping; beside the reasons of rules, which test_rules.py has."""

from ipaddress import ip_address

import pytest

from marchproxy.model.documents import read_mapping
from marchproxy.model.entities import Mapping, Service
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.plan import Severity
from tests.policy.build import NOW, mapping, plan, service, snapshot, texts

WEB = service("web", "10.1.0.1", "2001:db8:1::1", port=8080)
WEB4 = service("web4", "10.1.0.4")
NAMED = service("named", "n.example.com")


def told(*entities: Service | Mapping) -> list[str]:
    """The findings, shortened by the subject they all have."""
    return [text.replace("mapping m: ", "") for text in texts(plan(*entities).findings)]


def test_references_to_nothing_are_told() -> None:
    assert told(WEB, mapping("m", "ghost,collection:none", "web", "192.0.2.1:80")) == [
        "error names service ghost, which does not exist",
        "warning names collection:none, to which no service belongs",
    ]


@pytest.mark.parametrize(("listen", "protocols", "captured"), [("*:22", "tcp", True), ("*:22", "udp", False)])
def test_the_management_port_cannot_be_captured(listen: str, protocols: str, captured: bool) -> None:
    finding = "error listens on 22/tcp and would capture the management port"
    assert (finding in told(WEB, mapping("m", "all", "web", listen, protocols))) is captured


def test_which_ports_are_for_management_is_told_to_the_compiler() -> None:
    def errors(*management: int) -> list[str]:
        wanted = snapshot(WEB, mapping("m", "all", "web", "*:2222"))
        made = compile_plan(wanted, management=frozenset(management), now=NOW)
        again = compile_plan(wanted, management=frozenset(management), now=NOW, previous=before)
        assert made == again
        return texts(made.plan.findings)

    before = compile_plan(snapshot(WEB, mapping("m", "all", "web", "*:2222")), now=NOW)
    assert errors(22) == []
    assert errors(22, 2222) == ["error mapping m: listens on 2222/tcp and would capture the management port"]


def test_waiting_for_a_name_is_said_with_the_name() -> None:
    made = plan(NAMED, mapping("m", "all", "named", "192.0.2.1:80"))
    assert [finding.hint for finding in made.findings] == ["waiting for n.example.com"]


def test_a_listener_of_the_other_family_can_never_work() -> None:
    wanted = mapping("m", "all", "web4", "[2001:db8::1]:80")
    assert told(WEB4, wanted) == ["error has no IPv6 backend: such clients of [2001:db8::1]:80 are denied"]


@pytest.mark.parametrize(
    ("address", "listen", "loops"),
    [
        ("10.1.0.9", "10.1.0.9:80", True),
        ("10.1.0.9", "10.1.0.9:81", False),
        ("10.1.0.9", "*:80", False),
        ("127.0.0.1", "*:80", True),
        ("::1", "[::]:80", True),
        ("127.0.0.1", "10.1.0.9:80", False),
    ],
)
def test_a_backend_that_is_the_listener_itself_is_an_error(address: str, listen: str, loops: bool) -> None:
    looping = service("looping", address, port=80)
    finding = f"error would send traffic of {listen} back to itself: looping has that address"
    assert told(looping, mapping("m", "all", "looping", listen)) == ([finding] if loops else [])


def test_a_name_that_resolves_to_the_listener_is_a_warning() -> None:
    """Or whoever runs the name could keep every later configuration from being applied."""
    wanted = mapping("m", "all", "named", "10.1.0.9:80")
    made = plan(NAMED, wanted, names={"n.example.com": [ip_address("10.1.0.9")]})
    assert texts(made.findings) == [
        "warning mapping m: would send traffic of 10.1.0.9:80 back to itself: named has that address"
    ]


def test_draining_everything_is_told() -> None:
    two = service("web", "10.1.0.1", "10.1.0.2", port=80, drain=["10.1.0.1", "10.1.0.2"])
    one = service("web", "10.1.0.1", "10.1.0.2", port=80, drain=["10.1.0.1"])
    www = mapping("www", "all", "web", "192.0.2.1:80")
    assert texts(plan(two, www).findings) == [
        "warning mapping www: sends to drained backends only: new connections are denied"
    ]
    assert texts(plan(one, www).findings) == []


def test_management_ports_within_a_range_are_told_each() -> None:
    wanted = snapshot(WEB, mapping("m", "all", "web", "*:20-2300"))
    made = compile_plan(wanted, management=frozenset({22, 2222, 9999}), now=NOW)
    assert texts(made.plan.findings) == [
        f"error mapping m: listens on {port}/tcp and would capture the management port" for port in (22, 2222)
    ]


@pytest.mark.parametrize("port", [None, 9010])
def test_a_range_that_leads_back_to_itself_is_told_once(port: int | None) -> None:
    here = service("here", "192.0.2.1", port=port)
    assert told(here, mapping("m", "all", "here", "192.0.2.1:9000-9499")) == [
        "error would send traffic of 192.0.2.1:9000-9499 back to itself: here has that address"
    ]


def test_a_range_that_leads_elsewhere_is_no_loop() -> None:
    here = service("here", "192.0.2.1", port=80)
    assert told(here, mapping("m", "all", "here", "192.0.2.1:9000-9499")) == []


def test_what_is_wrong_with_all_ports_of_a_range_is_told_once() -> None:
    assert told(WEB4, mapping("m", "all", "web4", "[2001:db8::1]:80-180")) == [
        "error has no IPv6 backend: such clients of [2001:db8::1]:80-180 are denied"
    ]


def test_ports_that_cover_the_range_are_as_good_as_none() -> None:
    assert told(WEB4, mapping("m", "all", "web4", "192.0.2.1:80-180", ports="80-180")) == []
    assert told(WEB4, mapping("m", "all", "web4", "192.0.2.1:80-180", ports="80-179")) == [
        "error cannot use web4: its port is not among 80-179",
        "error has no IPv4 backend: such clients of 192.0.2.1:80-180 are denied",
    ]


@pytest.mark.parametrize(
    ("fields", "goes_round"),
    [
        ({"redirect": "http://{host}{path}"}, True),
        ({"redirect": "http://a.example{path}", "host": "a.example"}, True),
        ({"redirect": "https://{host}{path}"}, False),
        ({"redirect": "http://{host}{path}", "rewrite_prefix": "/new"}, False),
        ({"redirect": "http://{host}{path}", "listen": "192.0.2.1:8080"}, False),
        ({"redirect": "https://{host}{path}", "listen": "192.0.2.1:443", "tls": "c"}, True),
    ],
)
def test_a_redirect_to_where_it_comes_from_is_told(fields: dict[str, str], goes_round: bool) -> None:
    document = {"name": "away", "sources": ["all"], "protocols": ["http"], "listen": "192.0.2.1:80", **fields}
    found = plan(read_mapping(document)).findings
    assert any("go round in circles" in finding.message for finding in found) is goes_round
    assert not any(finding.severity is Severity.ERROR for finding in found)
