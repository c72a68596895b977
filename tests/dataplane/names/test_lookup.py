"""From a name to addresses: families side by side, aliases, the hosts file, the search list."""

from pathlib import Path

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from marchproxy.dataplane.names.asker import Asker
from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, Reply
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.names.lookup import MOST_ADDRESSES, Lookup, read_chain
from marchproxy.dataplane.names.system import Upstreams, Watched, read_hosts
from tests.dataplane.loops import PATIENCE, looped
from tests.dataplane.names.dns_server import DnsServer, dns_server


def lookup(server: DnsServer, hosts: Path = Path("/dev/null"), *search: str) -> Lookup:
    def upstreams() -> Upstreams:
        return Upstreams((server.endpoint,), search, timeout=PATIENCE, attempts=1)

    return Lookup(Asker(upstreams), upstreams, Watched(hosts, read_hosts))


def shown(found: Found) -> list[str]:
    return sorted(str(address) for address in found.addresses)


def reply(response: dns.message.Message) -> Reply:
    wire = response.to_wire()
    return Reply(wire, dns.message.from_wire(wire))


async def failure(looking: Lookup, name: str) -> tuple[Failure, float]:
    with pytest.raises(LookupFailed) as failed:
        await looking.find(name)
    return failed.value.failure, failed.value.ttl


@looped
async def test_both_families_and_the_smallest_ttl() -> None:
    async with dns_server() as server:
        server.records["db.example.com", "A"] = (300, ["192.0.2.1", "192.0.2.2"])
        server.records["db.example.com", "AAAA"] = (20, ["2001:db8::1"])
        found = await lookup(server).find("db.example.com")
        assert shown(found) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        assert (found.ttl, found.unknown, found.is_local) == (20, frozenset(), False)


@looped
async def test_one_family_is_enough_and_its_ttl_counts() -> None:
    async with dns_server() as server:
        server.has("db.example.com", "192.0.2.1", ttl=77)
        found = await lookup(server).find("db.example.com")
        assert (shown(found), found.ttl, found.unknown) == (["192.0.2.1"], 77, frozenset())


@pytest.mark.parametrize("follows", [True, False])
@looped
async def test_aliases_are_followed_by_the_server_or_by_us(follows: bool) -> None:
    async with dns_server() as server:
        server.follows = follows
        server.has("www.example.com", "cdn.example.net.", ttl=40, kind="CNAME")
        server.has("cdn.example.net", "pop.example.org.", ttl=9, kind="CNAME")
        server.has("pop.example.org", "192.0.2.9", ttl=300)
        found = await lookup(server).find("www.example.com")
        assert (shown(found), found.ttl) == (["192.0.2.9"], 9)


@pytest.mark.parametrize("follows", [True, False])
@looped
async def test_aliases_in_a_circle_end(follows: bool) -> None:
    async with dns_server() as server:
        server.follows = follows
        server.has("a.example.com", "b.example.com.", kind="CNAME")
        server.has("b.example.com", "a.example.com.", kind="CNAME")
        kind, _ = await failure(lookup(server), "a.example.com")
        assert kind in (Failure.MALFORMED, Failure.NODATA)
        assert len(server.asked) < 40


@looped
async def test_why_there_are_none_is_told_apart() -> None:
    async with dns_server() as server:
        looking = lookup(server)
        server.has("text.example.com", '"x"', kind="TXT")
        assert await failure(looking, "none.example.com") == (Failure.NXDOMAIN, 30.0)
        assert await failure(looking, "text.example.com") == (Failure.NODATA, 30.0)
        server.rcode = dns.rcode.SERVFAIL
        assert (await failure(looking, "text.example.com"))[0] is Failure.SERVFAIL
    assert (await failure(looking, "text.example.com"))[0] is Failure.UNREACHABLE


@looped
async def test_a_family_that_fails_is_unknown_and_not_empty() -> None:
    class OneSided(Asker):
        async def ask(self, question: Question) -> Reply:
            if question.kind == dns.rdatatype.AAAA:
                raise ExchangeFailed(Failure.SERVFAIL)
            return await super().ask(question)

    async with dns_server() as server:
        server.has("db.example.com", "192.0.2.1")

        def upstreams() -> Upstreams:
            return Upstreams((server.endpoint,), timeout=PATIENCE, attempts=1)

        found = await Lookup(OneSided(upstreams), upstreams).find("db.example.com")
        assert (shown(found), found.unknown) == (["192.0.2.1"], frozenset({6}))


@looped
async def test_the_hosts_file_goes_first_and_is_read_again(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.7 db.example.com db\n")
    async with dns_server() as server:
        server.has("db.example.com", "192.0.2.1")
        looking = lookup(server, hosts)
        found = await looking.find("db.example.com")
        assert (shown(found), found.is_local) == (["10.0.0.7"], True)
        assert server.asked == []
        hosts.write_text("# nothing any more\n")
        assert shown(await looking.find("db.example.com")) == ["192.0.2.1"]


@looped
async def test_the_search_list_is_for_single_labels() -> None:
    async with dns_server() as server:
        server.has("db.lab.example.com", "192.0.2.1")
        looking = lookup(server, Path("/dev/null"), "none.example.com", "lab.example.com")
        assert shown(await looking.find("db")) == ["192.0.2.1"]
        assert (await failure(looking, "db.lab"))[0] is Failure.NXDOMAIN
        assert ("db.lab.lab.example.com", "A") not in server.asked
        server.rcode = dns.rcode.SERVFAIL
        server.asked.clear()
        assert (await failure(looking, "db"))[0] is Failure.SERVFAIL
        assert {name for name, _ in server.asked} == {"db.none.example.com"}


@looped
async def test_an_answer_without_end_is_cut() -> None:
    async with dns_server() as server:
        server.truncated = True
        server.has("db.example.com", *(f"192.0.{n // 256}.{n % 256}" for n in range(2000)))
        found = await lookup(server).find("db.example.com")
        assert len(found.addresses) == MOST_ADDRESSES


def test_an_answer_beside_nxdomain_cannot_be_meant() -> None:
    query = dns.message.make_query("www.example.com", "A")
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.NXDOMAIN)
    response.answer = [dns.rrset.from_text("www.example.com.", 60, "IN", "A", "192.0.2.1")]
    with pytest.raises(ExchangeFailed):
        read_chain(reply(response), dns.rdatatype.A)


def test_records_of_other_names_are_not_taken() -> None:
    query = dns.message.make_query("www.example.com", "A")
    response = dns.message.make_response(query)
    response.answer = [dns.rrset.from_text("evil.example.com.", 60, "IN", "A", "203.0.113.66")]
    chain = read_chain(reply(response), dns.rdatatype.A)
    assert (chain.addresses, chain.last) == ((), dns.name.from_text("www.example.com"))
