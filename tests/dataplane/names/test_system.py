"""resolv.conf and hosts as they come, damaged ones included."""

import os
from pathlib import Path

import pytest

from marchproxy.dataplane.names.system import (
    SystemUpstreams,
    Upstreams,
    Watched,
    read_hosts,
    read_resolv_conf,
    read_resolvers,
)
from marchproxy.model.errors import InvalidValue


def servers(upstreams: Upstreams) -> list[str]:
    return [str(server) for server in upstreams.servers]


def test_a_resolv_conf_is_read_as_the_library_does() -> None:
    found = read_resolv_conf(
        "# comment\n; another\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n"
        "nameserver 192.0.2.1\nnameserver nonsense\nnameserver\n"
        "search Lab.Example.com. example.com .\noptions ndots:2 timeout:1 attempts:9 rotate\n"
    )
    assert servers(found) == ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53"]
    assert found.search == ("lab.example.com", "example.com")
    assert (found.timeout, found.attempts) == (1.0, 3)


def test_the_last_of_search_and_domain_counts() -> None:
    assert read_resolv_conf("search a.example b.example\ndomain c.example\n").search == ("c.example",)


UNUSABLE = ["", "options timeout:x\n", "options timeout:-1 attempts:0\n", "\0\0", "nameserver ..."]


@pytest.mark.parametrize("text", UNUSABLE)
def test_nothing_usable_means_this_host(text: str) -> None:
    found = read_resolv_conf(text)
    assert servers(found) == ["127.0.0.1:53"]
    assert 1 <= found.timeout <= 5
    assert 1 <= found.attempts <= 3


def test_hosts_are_found_by_every_name_in_any_case() -> None:
    found = read_hosts(
        "127.0.0.1 localhost\n::1 localhost\n192.0.2.1\tDB.example.com db. # the database\n"
        "nonsense x\n192.0.2.2\n::ffff:10.0.0.1 mapped\nfe80::1%lo zoned\n192.0.2.3 db\n"
    )
    assert [str(address) for address in found["localhost"]] == ["127.0.0.1", "::1"]
    assert [str(address) for address in found["db"]] == ["192.0.2.1", "192.0.2.3"]
    assert set(found) == {"localhost", "db", "db.example.com"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1:53"),
        ("192.0.2.1:5353", "192.0.2.1:5353"),
        ("2001:db8::1", "[2001:db8::1]:53"),
        ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
    ],
)
def test_settings_name_servers_with_or_without_a_port(text: str, expected: str) -> None:
    assert servers(read_resolvers((text,))) == [expected]


@pytest.mark.parametrize("text", ["", "dns.example.com", "*:53", "0.0.0.0:53", "192.0.2.1:0", "192.0.2.1:x"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        read_resolvers((text,))


def test_a_file_is_read_again_only_when_it_is_another(tmp_path: Path) -> None:
    path, read = tmp_path / "file", []

    def remember(text: str) -> str:
        read.append(text)
        return text

    watched = Watched(path, remember)
    assert [watched.get(), watched.get()] == ["", ""]
    path.write_text("one")
    assert [watched.get(), watched.get()] == ["one", "one"]
    beside = tmp_path / "new"
    beside.write_text("two")
    beside.replace(path)
    assert watched.get() == "two"
    path.unlink()
    assert watched.get() == ""
    assert read == ["", "one", "two", ""]


def test_what_is_no_file_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert Watched(tmp_path / "pipe", str).get() == ""
    assert Watched(tmp_path, str).get() == ""


def test_configured_servers_replace_the_systems_and_go_again(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\nsearch lab.example\n")
    upstreams = SystemUpstreams(path)
    assert servers(upstreams()) == ["192.0.2.1:53"]
    upstreams.configure(("198.51.100.1:5353",))
    assert servers(upstreams()) == ["198.51.100.1:5353"]
    assert upstreams().search == ("lab.example",)
    upstreams.configure(())
    path.write_text("nameserver 192.0.2.99\n")
    assert servers(upstreams()) == ["192.0.2.99:53"]
