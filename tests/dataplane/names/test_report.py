"""What operators read about names. Whole loops are in test_resolver; here are the sentences."""

from ipaddress import ip_address
from math import inf

from marchproxy.dataplane.names.asker import Asker, Silence
from marchproxy.dataplane.names.following import Following
from marchproxy.dataplane.names.found import Failure
from marchproxy.dataplane.names.held import HeldAddresses
from marchproxy.dataplane.names.report import NAMED, name_problems, name_state
from marchproxy.dataplane.names.system import Upstreams
from marchproxy.dataplane.names.table import NameTable
from marchproxy.model.endpoint import parse_endpoint

KEPT = "the resolver does not answer; the last good addresses of names stay in use"
ONE, TWO = parse_endpoint("192.0.2.53:53"), parse_endpoint("192.0.2.54:53")


class Servers(Asker):
    """An asker with silent servers of the test's choice."""

    def __init__(self, *silent: object) -> None:
        super().__init__(lambda: Upstreams((ONE, TWO)))
        self._silent = {each: Silence(0, 0, Failure.TIMEOUT) for each in (ONE, TWO) if each in silent}


def failing(failure: Failure) -> Following:
    state = Following()
    state.failed(failure)
    state.since = 1_800_000_000.0
    return state


def table(*names: str) -> NameTable:
    made = NameTable()
    made.keep(frozenset(names))
    return made


def test_names_that_fail_are_named_up_to_a_number() -> None:
    names = [f"h{number:02}.example.com" for number in range(NAMED + 5)]
    found = name_problems(Servers(), {name: failing(Failure.SERVFAIL) for name in names}, table(*names))
    assert found[0] == (
        "h00.example.com does not resolve: the resolver could not find out, since 2027-01-15T08:00:00Z; "
        "nothing is allowed by it"
    )
    assert len(found) == NAMED + 1
    assert found[-1].startswith("5 more names do not resolve")


def test_a_silent_server_is_one_problem_and_not_one_for_each_name() -> None:
    names = {name: failing(Failure.TIMEOUT) for name in ("a.example.com", "b.example.com")}
    held = table(*names)
    held.answer("a.example.com", [ip_address("192.0.2.1")], frozenset(), 0)
    found = name_problems(Servers(ONE, TWO), names, held)
    assert found == [
        f"DNS server 192.0.2.53:53: {KEPT}",
        f"DNS server 192.0.2.54:53: {KEPT}",
        "never resolved, so nothing is allowed by them: b.example.com",
    ]


def test_one_silent_server_of_two_harms_nobody_and_is_said() -> None:
    assert name_problems(Servers(ONE), {}, table()) == [
        "DNS server 192.0.2.53:53: the resolver does not answer; others answer in its place"
    ]


def test_a_resolver_that_is_our_own_listener_is_said() -> None:
    asker = Servers()
    asker.avoided = frozenset({ONE, TWO})
    (problem,) = name_problems(asker, {}, table())
    assert problem.startswith("all DNS servers are this appliance's own listeners")


def test_all_is_well_is_no_problem() -> None:
    assert name_problems(Servers(), {"a": Following()}, table("a")) == []


def test_a_state_tells_addresses_with_the_time_they_have_left() -> None:
    held = HeldAddresses()
    held.answer([ip_address("192.0.2.1")], frozenset(), 0, 1)
    held.learn([ip_address("192.0.2.2")], 60, 0, 1)
    held.restore(ip_address("192.0.2.3"), -10, 40, 1)
    held.settle(0)
    state = name_state("*.example.com", held, None, 10)
    assert [(str(each.address), each.current, each.left) for each in state.addresses] == [
        ("192.0.2.1", True, None),
        ("192.0.2.2", True, 50),
        ("192.0.2.3", False, 30),
    ]
    assert (state.state, state.error) == ("learning", "")
    assert name_state("a", HeldAddresses(), Following(), 0).state == "waiting"
    assert name_state("a", HeldAddresses(), failing(Failure.NODATA), 0).error == "it has no addresses"
    assert HeldAddresses().next_at == inf
