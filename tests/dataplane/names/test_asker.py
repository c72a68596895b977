"""Several servers: who is asked, in which order, and what is said when none knows."""

import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from marchproxy.dataplane.names.asker import ASIDE, Asker
from marchproxy.dataplane.names.exchange import ExchangeFailed, Question
from marchproxy.dataplane.names.found import Failure
from marchproxy.dataplane.names.system import Upstreams
from marchproxy.model.endpoint import Endpoint
from tests.dataplane.loops import PATIENCE, looped
from tests.dataplane.names.dns_server import dns_server

WWW = Question(dns.name.from_text("www.example.com"), dns.rdatatype.A)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def asker(*servers: Endpoint, timeout: float = 0.05, clock: Clock | None = None) -> Asker:
    return Asker(lambda: Upstreams(servers, timeout=timeout, attempts=1), clock or Clock())


@looped
async def test_the_next_server_answers_for_one_that_is_silent_and_goes_first_for_a_while() -> None:
    clock = Clock()
    async with dns_server() as first, dns_server() as second:
        for server in (first, second):
            server.has("www.example.com", "192.0.2.7")
        first.silent = True
        asking = asker(first.endpoint, second.endpoint, timeout=1.0, clock=clock)
        await asking.ask(WWW)
        assert (len(first.ports), len(second.asked)) == (1, 1)
        assert list(asking.silent) == [first.endpoint]
        assert not asking.is_down
        await asking.ask(WWW)
        assert (len(first.ports), len(second.asked)) == (1, 2)
        clock.now += ASIDE + 1
        first.silent = False
        await asking.ask(WWW)
        assert (len(first.asked), len(second.asked)) == (1, 2)
        assert asking.silent == {}


@looped
async def test_a_server_that_stays_silent_is_blamed_since_the_first_time_and_put_aside_again() -> None:
    clock = Clock()
    async with dns_server() as first, dns_server() as second:
        second.has("www.example.com", "192.0.2.7")
        first.silent = True
        asking = asker(first.endpoint, second.endpoint, timeout=1.0, clock=clock)
        await asking.ask(WWW)
        clock.now += ASIDE + 1
        await asking.ask(WWW)
        await asking.ask(WWW)
        assert len(first.ports) == 2
        silence = asking.silent[first.endpoint]
        assert (silence.since, silence.last, silence.failure) == (1000.0, clock.now, Failure.TIMEOUT)


@pytest.mark.parametrize(
    ("rcode", "failure"),
    [
        (dns.rcode.SERVFAIL, Failure.SERVFAIL),
        (dns.rcode.REFUSED, Failure.REFUSED),
        (dns.rcode.NOTIMP, Failure.MALFORMED),
    ],
)
@looped
async def test_an_error_is_another_servers_chance(rcode: dns.rcode.Rcode, failure: Failure) -> None:
    async with dns_server() as first, dns_server() as second:
        first.rcode = rcode
        second.has("www.example.com", "192.0.2.7")
        asking = asker(first.endpoint, second.endpoint, timeout=PATIENCE)
        assert (await asking.ask(WWW)).message.answer
        second.rcode = rcode
        with pytest.raises(ExchangeFailed) as failed:
            await asking.ask(WWW)
        assert failed.value.failure is failure
        # It answers: nobody is down.
        assert not asking.is_down


@looped
async def test_a_name_that_does_not_exist_is_no_reason_to_ask_another() -> None:
    async with dns_server() as first, dns_server() as second:
        reply = await asker(first.endpoint, second.endpoint, timeout=PATIENCE).ask(WWW)
        assert reply.message.rcode() == dns.rcode.NXDOMAIN
        assert second.asked == []


@looped
async def test_all_silent_is_down() -> None:
    async with dns_server() as server:
        server.silent = True
        asking = asker(server.endpoint)
        with pytest.raises(ExchangeFailed) as failed:
            await asking.ask(WWW)
        assert failed.value.failure is Failure.TIMEOUT
        assert asking.is_down


@looped
async def test_we_do_not_ask_ourselves() -> None:
    async with dns_server() as server:
        asking = asker(server.endpoint)
        asking.avoided = frozenset({server.endpoint})
        assert asking.servers == ()
        with pytest.raises(ExchangeFailed) as failed:
            await asking.ask(WWW)
        assert failed.value.failure is Failure.UNREACHABLE
        assert asking.is_down
        assert server.ports == []
