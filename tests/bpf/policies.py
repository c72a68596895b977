"""The table of policies that every tier must agree on: who asks for what under which policy, and the answer.

Hosts are those of the bed: clients 10.1.0.2 to .4, fd01::2 to ::4; servers 10.2.0.2, .3, fd02::2, ::3.
"""

from dataclasses import dataclass, field
from ipaddress import ip_address

from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Plan
from tests.policy import build
from tests.policy.build import mapping, service

OWN = frozenset(map(ip_address, ("10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1")))
"""The middle host's addresses."""


@dataclass(frozen=True)
class Question:
    """One row."""

    sentence: str
    entities: tuple[Service | Mapping, ...]
    client: str
    asked: str
    reason: Reason
    transport: Transport = Transport.TCP
    backends: tuple[str, ...] = field(default=())
    """Where the flow may go."""

    def __str__(self) -> str:
        return self.sentence

    @property
    def endpoint(self) -> Endpoint:
        """What is asked for."""
        return parse_endpoint(self.asked)

    @property
    def query(self) -> Query:
        """As the reference is asked."""
        address = self.endpoint.address
        assert address is not None
        return Query(ip_address(self.client), address, self.endpoint.port, self.transport, OWN)

    def plan(self) -> Plan:
        """The policy of the row, compiled."""
        return build.plan(*self.entities)


ALICE = service("alice", "10.1.0.2", "fd01::2")
BOB = service("bob", "10.1.0.3", "fd01::3")
OFFICE = service("office", "10.1.0.0/24", "fd01::/64")
WEB = service("web", "10.2.0.2", "fd02::2", port=8080)
SPARE = service("spare", "10.2.0.3", "fd02::3", port=8080)
RED = service("red", "10.1.0.4", collection="guests")
TOKEN = service("vault", "10.2.0.2", port=8080, auth="token")

WEB4, WEB6, SPARE4 = "10.2.0.2:8080", "[fd02::2]:8080", "10.2.0.3:8080"
OPEN = (WEB, mapping("open", "all", "web", "*:80", protocols="tcp,udp"))
EXACT = (WEB, SPARE, mapping("any", "all", "web", "*:80"), mapping("one", "all", "spare", "10.1.0.1:80"))
REFUSED = (ALICE, WEB, mapping("open", "all", "web", "*:80"))

F, N, D = Reason.FORWARDED, Reason.NO_MAPPING, Reason.DENY_MAPPING
UDP = Transport.UDP


def _deny(priority: int, sources: str = "alice") -> Mapping:
    return mapping("deny", sources, "web", "*:80", action="deny", priority=priority)


QUESTIONS = (
    Question("anyone at a wildcard listener", OPEN, "10.1.0.2", "10.1.0.1:80", F, backends=(WEB4,)),
    Question("over IPv6", OPEN, "fd01::2", "[fd01::1]:80", F, backends=(WEB6,)),
    Question("over UDP", OPEN, "10.1.0.2", "10.1.0.1:80", F, UDP, (WEB4,)),
    Question("over UDP and IPv6", OPEN, "fd01::2", "[fd01::1]:80", F, UDP, (WEB6,)),
    Question("at another address of the host", OPEN, "10.1.0.2", "10.2.0.1:80", F, backends=(WEB4,)),
    Question("another port is the host's", OPEN, "10.1.0.2", "10.1.0.1:81", Reason.PASSED_TO_HOST),
    Question(
        "another protocol is the host's",
        (WEB, mapping("open", "all", "web", "*:80")),
        *("10.1.0.2", "10.1.0.1:80", Reason.PASSED_TO_HOST, UDP),
    ),
    Question("a way through is denied", OPEN, "10.1.0.2", "10.2.0.2:80", N),
    Question("a way through is denied over IPv6", OPEN, "fd01::2", "[fd02::2]:80", N),
    Question("the exact listener first", EXACT, "10.1.0.2", "10.1.0.1:80", F, backends=(SPARE4,)),
    Question("the wildcard at other addresses", EXACT, "10.1.0.2", "10.2.0.1:80", F, backends=(WEB4,)),
    Question(
        "an exact listener of a foreign address",
        (WEB, mapping("virtual", "all", "web", "10.2.0.9:80")),
        *("10.1.0.2", "10.2.0.9:80", F),
        backends=(WEB4,),
    ),
    Question(
        "the exact listener decides alone",
        (ALICE, *EXACT[:3], mapping("one", "alice", "spare", "10.1.0.1:80")),
        *("10.1.0.3", "10.1.0.1:80", N),
    ),
    Question(
        "a source that no mapping names",
        (ALICE, WEB, mapping("own", "alice", "web", "*:80")),
        *("10.1.0.3", "10.1.0.1:80", N),
    ),
    Question(
        "a source within a named range",
        (OFFICE, WEB, mapping("own", "office", "web", "*:80")),
        *("fd01::77", "[fd01::1]:80", F),
        backends=(WEB6,),
    ),
    Question("a deny mapping", (*REFUSED, _deny(50)), "10.1.0.2", "10.1.0.1:80", D),
    Question("a deny mapping is for its sources only", (*REFUSED, _deny(50)), "10.1.0.3", "10.1.0.1:80", F,
             backends=(WEB4,)),
    Question("deny before allow of equal priority", (*REFUSED, _deny(100)), "fd01::2", "[fd01::1]:80", D),
    Question("allow before deny of a higher number", (*REFUSED, _deny(101)), "10.1.0.2", "10.1.0.1:80", F,
             backends=(WEB4,)),
    Question(
        "a deny mapping that listens nowhere is for the listeners of others",
        (*REFUSED, mapping("deny", "alice", "web", action="deny", priority=50)),
        *("10.1.0.2", "10.1.0.1:80", D),
    ),
    Question(
        "the longer prefix does not hide the shorter",
        (ALICE, OFFICE, WEB, mapping("own", "office", "web", "*:80")),
        *("10.1.0.2", "10.1.0.1:80", F),
        backends=(WEB4,),
    ),
    Question(
        "a lower priority wins over a more specific source",
        (ALICE, OFFICE, WEB, SPARE, mapping("a", "alice", "web", "*:80", priority=9),
         mapping("b", "office", "spare", "*:80", priority=8)),
        *("10.1.0.2", "10.1.0.1:80", F),
        backends=(SPARE4,),
    ),
    Question(
        "a collection",
        (RED, WEB, mapping("guests", "collection:guests", "web", "*:80")),
        *("10.1.0.4", "10.1.0.1:80", F),
        backends=(WEB4,),
    ),
    Question(
        "external is whoever is in no service",
        (ALICE, WEB, mapping("public", "external", "web", "*:80")),
        *("10.1.0.3", "10.1.0.1:80", F),
        backends=(WEB4,),
    ),
    Question(
        "external is nobody who is in a service",
        (ALICE, WEB, mapping("public", "external", "web", "*:80")),
        *("10.1.0.2", "10.1.0.1:80", N),
    ),
    Question(
        "a service of everyone leaves no externals, of either family",
        (service("world", "0.0.0.0/0"), WEB, mapping("public", "external", "web", "*:80")),
        *("10.1.0.3", "10.1.0.1:80", N),
    ),
    Question(
        "a range of all IPv6 holds no IPv4 address",
        (service("six", "::/0"), WEB, mapping("own", "six", "web", "*:80")),
        *("10.1.0.2", "10.1.0.1:80", N),
    ),
    Question(
        "a mapping without a backend of the family",
        (service("four", "10.2.0.2", port=8080), mapping("open", "all", "four", "[fd01::1]:80")),
        *("fd01::2", "[fd01::1]:80", Reason.NO_BACKEND),
    ),
    Question(
        "a mapping that wants a credential",
        (TOKEN, mapping("safe", "all", "vault", "*:80")),
        *("10.1.0.2", "10.1.0.1:80", Reason.AUTH_MISSING),
    ),
    Question(
        "a mapping that denies some TLS names",
        (WEB, mapping("api", "all", "web", "*:80", sni=True, action="deny")),
        *("10.1.0.2", "10.1.0.1:80", Reason.NOT_CARRIED),
    ),
    Question("management is the host's even behind a listener", (), "10.1.0.2", "10.1.0.1:22",
             Reason.PASSED_TO_HOST),
)  # fmt: skip
