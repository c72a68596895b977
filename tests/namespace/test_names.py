"""Inside hosts that ask the appliance for names, with a real DNS server behind it that also goes away."""

from collections.abc import Iterator

import pytest

from rig import Appliance, Process, Rig, RigError, wait_for
from rig.servers import start_http
from rig.traffic import fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["dig", "dnsmasq"])

LISTENER = "10.1.0.1"
PUBLIC = "198.51.100.10"
ZONE = {
    "www.wild.test": PUBLIC,
    "deep.www.wild.test": PUBLIC,
    "late.wild.test": "198.51.100.12",
    "six.wild.test": "2001:db8::10",
    "x.ads.test": PUBLIC,
    "exact.test": PUBLIC,
    "elsewhere.test": "198.51.100.11",
    "rebind.wild.test": "10.2.0.2",
    "metadata.wild.test": "169.254.169.254",
    "own.wild.test": "10.1.0.1",
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One client, and one server with public addresses."""
    with Rig() as built:
        built.server.add_address("eth0", f"{PUBLIC}/32", "198.51.100.11/32")
        built.middle.ip("route add 198.51.100.0/24 via 10.2.0.2")
        start_http(built.server, 80, PUBLIC, "198.51.100.11")
        yield built


def dnsmasq(rig: Rig) -> Process:
    """A DNS server whose answers hold for a second."""
    names = [f"--address=/{name}/{address}" for name, address in ZONE.items()]
    process = rig.server.popen(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
         "--local-ttl=1", "--listen-address=10.2.0.2", "--bind-interfaces", *names]
    )  # fmt: skip
    asked = ["dig", "+short", "+time=1", "+tries=1", "@10.2.0.2", "exact.test"]
    wait_for(lambda: PUBLIC in rig.server.run(asked, check=False).stdout, "dnsmasq to answer")
    return process


@pytest.fixture(scope="module")
def upstream(rig: Rig) -> Iterator[Process]:
    process = dnsmasq(rig)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def appliance(rig: Rig, upstream: Process) -> Iterator[Appliance]:
    """A wildcard at port 8080 and routed, a name at 8081; DNS for whoever is inside."""
    with Appliance(rig) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        built.cli("interface", "add", "outside0", "--role", "outside")
        built.cli("appliance", "set", "--resolver", "10.2.0.2")
        built.cli("listener", "add", "dns", "--bind", "*:53")
        for name, address, port in (("wild", "*.wild.test", "8080"), ("exact", "exact.test", "8081")):
            built.cli("service", "add", name, "--address", address, "--port", "80")
            built.cli(
                "mapping", "add", name, "--from", "all", "--to", name, "--protocol", "tcp",
                "--listen", f"{LISTENER}:{port}",
            )  # fmt: skip
        built.cli("service", "add", "clients", "--address", "10.1.0.0/24")
        built.cli(
            "mapping",
            "add",
            "routed",
            "--from",
            "clients",
            "--to",
            "wild",
            "--protocol",
            "tcp",
            "--ports",
            "80",
        )
        built.start()
        yield built


def dig(rig: Rig, name: str, *words: str) -> list[str]:
    """Addresses that the client is told."""
    asked = ["dig", "+short", "+time=20", "+tries=1", *words, f"@{LISTENER}", name]
    return rig.client.run(asked).stdout.split()


def test_a_client_connects_at_once_to_what_it_was_told(rig: Rig, appliance: Appliance) -> None:
    with pytest.raises(OSError, match="refused"):
        rig.client.call(fetch, LISTENER, 8080)
    # Of a name that the wildcard does not cover, the addresses are told and allow nothing.
    assert dig(rig, "elsewhere.test") == ["198.51.100.11"]
    with pytest.raises(OSError, match="refused"):
        rig.client.call(fetch, LISTENER, 8080)
    assert dig(rig, "deep.www.wild.test", "+tcp") == [PUBLIC]
    assert PUBLIC.encode() in rig.client.call(fetch, LISTENER, 8080)
    names = {row["name"]: row for row in appliance.json("status", check=False)["host_names"]}
    assert names["*.wild.test"]["addresses"][0]["address"] == PUBLIC
    assert names["exact.test"]["state"] == "resolved"


def test_a_client_is_routed_to_what_it_was_told_and_nowhere_else(rig: Rig, appliance: Appliance) -> None:
    rig.server.add_address("eth0", "198.51.100.12/32")
    start_http(rig.server, 80, "198.51.100.12")
    for address in ("198.51.100.11", "198.51.100.12"):
        with pytest.raises(OSError, match=r"refused|unreachable|No route"):
            rig.client.call(fetch, address, 80)
    assert dig(rig, "late.wild.test") == ["198.51.100.12"]
    assert b"198.51.100.12" in rig.client.call(fetch, "198.51.100.12", 80)
    assert dig(rig, "elsewhere.test") == ["198.51.100.11"]
    with pytest.raises(OSError, match=r"refused|unreachable|No route"):
        rig.client.call(fetch, "198.51.100.11", 80)

    def named() -> bool:
        rows = appliance.json("flows", "--denied", "--destination", "198.51.100.11")
        return any(row["name"] == "elsewhere.test" for row in rows)

    wait_for(named, "the refusal with the name that was asked for")


def test_many_who_ask_at_once_are_all_answered(rig: Rig, appliance: Appliance) -> None:
    batch = "".join(f"{name}\n" for name in ("www.wild.test", "exact.test") * 45)
    answered = rig.client.run(["dig", "+short", f"@{LISTENER}", "-f", "-"], stdin=batch).stdout.split()
    assert answered == [PUBLIC] * 90


def test_names_are_asked_for_and_told_over_ipv6(rig: Rig, appliance: Appliance) -> None:
    for words in ((), ("+tcp",)):
        asked = [
            "dig",
            "+short",
            "+time=20",
            "+tries=1",
            *words,
            f"@{rig.client.ipv6[:-1]}1",
            "six.wild.test",
            "AAAA",
        ]
        assert rig.client.run(asked).stdout.split() == ["2001:db8::10"]
    assert "2001:db8::10" in appliance.json("status", check=False)["names"]["*.wild.test"]


def test_a_blocked_name_is_not_told(rig: Rig, appliance: Appliance) -> None:
    appliance.cli("block", "add", "*.ads.test")
    try:
        asked = ["dig", "+time=20", "+tries=1", f"@{LISTENER}", "x.ads.test"]
        assert "NXDOMAIN" in rig.client.run(asked).stdout
        assert appliance.json("status", check=False)["dns"]["questions"]["blocked"] > 0
    finally:
        appliance.cli("block", "remove", "*.ads.test", "--yes")
    assert dig(rig, "x.ads.test") == [PUBLIC]


def test_nobody_outside_is_answered(rig: Rig, appliance: Appliance) -> None:
    assert dig(rig, "exact.test") == [PUBLIC]
    for address in ("10.2.0.1", LISTENER):
        for words in ((), ("+tcp",)):
            asked = ["dig", "+time=1", "+tries=1", *words, f"@{address}", "exact.test"]
            refused = rig.server.run(asked, check=False)
            assert refused.returncode != 0
            assert PUBLIC not in refused.stdout
    (listener,) = appliance.json("status")["dns"]["listeners"]
    assert listener["interfaces"] == ["inside0"]


@pytest.mark.parametrize("name", ["rebind.wild.test", "metadata.wild.test", "own.wild.test"])
def test_names_that_point_inside_are_refused_until_allowed(rig: Rig, appliance: Appliance, name: str) -> None:
    assert dig(rig, name) == []
    status = appliance.json("status", check=False)
    assert status["problems"] == []
    assert name in status["dns"]["rebinding"]
    assert ZONE[name] not in status["names"].get("*.wild.test", [])
    appliance.cli("appliance", "set", "--private-answer", name)
    try:
        assert dig(rig, name) == [ZONE[name]]
        assert ZONE[name] in appliance.json("status", check=False)["names"]["*.wild.test"]
    finally:
        appliance.cli("appliance", "set", "--private-answer", "")


def test_a_name_that_fails_is_shown(rig: Rig, appliance: Appliance) -> None:
    appliance.cli("service", "add", "none", "--address", "none.invalid")
    appliance.cli("mapping", "add", "none", "--from", "none", "--to", "exact", "--protocol", "tcp",
                  "--listen", f"{LISTENER}:8082")  # fmt: skip

    def shown() -> str | None:
        said = appliance.cli("status", check=False).stdout
        return said if "none.invalid" in said else None

    said = wait_for(shown, "the name among the problems")
    assert "none.invalid does not resolve: " in said
    with pytest.raises(RigError):
        appliance.cli("status")
    appliance.cli("mapping", "remove", "none", "--yes")


def test_what_worked_goes_on_without_the_resolver_and_over_a_restart(
    rig: Rig, appliance: Appliance, upstream: Process
) -> None:
    assert dig(rig, "www.wild.test") == [PUBLIC]
    upstream.stop()
    # Answers held for a second: from here on these are the last good ones.
    wait_for(lambda: told_of_silence(appliance), "the appliance to say that its resolver is gone")
    for _ in range(2):
        assert dig(rig, "www.wild.test") == [PUBLIC]
        for port in (8080, 8081):
            assert b"server 198.51.100." in rig.client.call(fetch, LISTENER, port)
        appliance.kill9()
        appliance.start()
        for port in (8080, 8081):
            assert b"server 198.51.100." in rig.client.call(fetch, LISTENER, port)
        again = dnsmasq(rig)
        wait_for(lambda: not told_of_silence(appliance), "it to be over")
        assert dig(rig, "www.wild.test") == [PUBLIC]
        again.stop()
        wait_for(lambda: told_of_silence(appliance), "the silence to be told again")


def told_of_silence(appliance: Appliance) -> bool:
    """Whether `status` says that the resolver does not answer."""
    return any(
        "DNS server 10.2.0.2:53" in problem for problem in appliance.json("status", check=False)["problems"]
    )
