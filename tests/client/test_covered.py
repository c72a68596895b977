"""covered: what an operator must not cut by mistake."""

import io
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.cli.context import Environment
from marchproxy.client.covered import local_addresses, management_path, refuse_covering
from marchproxy.model.errors import Conflict
from tests.policy.blocking import blocks

TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        +-- 192.0.2.0/28 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.5
              /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
     |-- 192.0.2.5
        /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
"""
INET6 = "20010db8000000000000000000000005 02 40 00 80     eth0\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "fib_trie").write_text(TRIE)
    (tmp_path / "if_inet6").write_text(INET6)
    return tmp_path


def environment(session: str = "") -> Environment:
    return Environment(stdout=io.StringIO(), stderr=io.StringIO(), variables={"SSH_CONNECTION": session})


def test_addresses_of_this_host(proc: Path) -> None:
    found = {str(address) for address in local_addresses(proc)}
    assert found == {"192.0.2.5", "127.0.0.1", "2001:db8::5"}
    assert ip_address("127.0.0.1") in set(local_addresses())


def test_everything_that_is_needed_is_named_once(proc: Path) -> None:
    path = [f"{address} {what}" for address, what in management_path(environment("198.51.100.7 5 6 7"), proc)]
    assert path == [
        "198.51.100.7 the client of this SSH session",
        "127.0.0.1 loopback",
        "::1 loopback",
        "192.0.2.5 an address of the appliance",
        "2001:db8::5 an address of the appliance",
    ]


@pytest.mark.parametrize("session", ["", "   ", "nonsense", "fe80::1%eth0 1 2 3"])
def test_session_without_an_address_is_none(proc: Path, session: str) -> None:
    assert len(list(management_path(environment(session), proc))) == 4


def test_host_without_a_family(tmp_path: Path) -> None:
    assert [str(address) for address, _ in management_path(environment(), tmp_path)] == ["127.0.0.1", "::1"]


def test_what_is_cut_is_said_with_what_cuts_it(proc: Path) -> None:
    held = blocks("192.0.2.0/24", bogons=["127.0.0.0/8"])
    with pytest.raises(Conflict) as caught:
        refuse_covering(environment(), held, proc=proc)
    said = caught.value.message
    assert said.startswith("this would cut 127.0.0.1 (loopback, by bogons), ")
    assert said.endswith("192.0.2.5 (an address of the appliance, by 192.0.2.0/24)")
    refuse_covering(environment(), blocks("203.0.113.0/24"), proc=proc)
