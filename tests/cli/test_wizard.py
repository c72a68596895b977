"""`marchproxy init --wizard`: what it asks, shows, and writes. tests/namespace has it at work."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.cli import unit, wizard
from marchproxy.cli.questions import Questions
from marchproxy.dataplane.machine import Device
from marchproxy.model.address import IPAddress
from tests.cli.console import STATUS, Answers, Console, Daemon

LAN = Device("eth1", True, (ip_address("10.1.0.1"),))
DMZ = Device("eth2", False, ())
WAN = Device("eth0", True, (ip_address("192.0.2.5"), ip_address("2001:db8::5")), default=True)
FLAGS = ("init", "--wizard", "--inside", "eth1", "--outside", "eth0")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, console: Console) -> list[Device]:
    """Three devices, and nobody who is connected."""
    there = [WAN, LAN, DMZ]

    def found(client: IPAddress | None = None) -> tuple[Device, ...]:
        return tuple(replace(each, session=client is not None and each is WAN) for each in there)

    monkeypatch.setattr(wizard, "devices", found)
    console.variables["SSH_CONNECTION"] = ""
    return there


def exported(console: Console) -> Any:
    return console.ok("export").json


def nothing_written(console: Console) -> bool:
    return not (console.folder / "state").exists()


def test_defaults_are_those_of_a_gateway(console: Console, machine: list[Device]) -> None:
    result = console.ok("init", "--wizard", stdin="\n" * 6)
    document = exported(console)
    assert document["interfaces"] == [
        {"name": "eth0", "role": "outside", "masquerade": True},
        {"name": "eth1", "role": "inside"},
    ]
    assert document["settings"] == {"audit": True}
    [blocks] = document["block_lists"]
    assert blocks["name"] == "martians"
    assert len(result.out.strip()) >= 32
    assert "  outside    eth0 (192.0.2.5, 2001:db8::5), masquerade" in result.err
    assert "now start it: marchproxy run" in result.err
    assert [row["number"] for row in console.ok("revision", "list", "--output", "json").json] == [2, 1]


def test_the_builtin_list_is_not_about_this_machine(console: Console, machine: list[Device]) -> None:
    console.ok(*FLAGS, "--yes")
    assert console("block", "check", "198.51.100.1").code == 10
    for ours in ("192.0.2.9", "2001:db8::9"):
        assert console("block", "check", ours).code == 0


def test_it_comes_in_by_ssh(console: Console, machine: list[Device]) -> None:
    """Port and client of the session are guarded, whatever was answered."""
    console.variables["SSH_CONNECTION"] = "198.51.100.7 50000 192.0.2.5 2222"
    result = console.ok(*FLAGS, "--management-port", "22", "--yes")
    assert "you are connected by it" in result.err
    assert "TCP 22, 2222 of this machine" in result.err
    assert "198.51.100.7, where you come from" in result.err
    assert "MARCHPROXY_MANAGEMENT_PORTS=22,2222 marchproxy run" in result.err
    assert console("block", "check", "198.51.100.7").code == 0


def test_a_file_that_covers_the_operator_is_refused(console: Console, machine: list[Device]) -> None:
    console.variables["SSH_CONNECTION"] = "198.51.100.7 50000 192.0.2.5 22"
    file = console.write("bad.txt", "198.51.100.0/24\n")
    result = console(*FLAGS, "--block-list", file, "--yes")
    assert result.code == 4
    assert "this would cut 198.51.100.7 (the client of this SSH session" in result.err
    assert nothing_written(console)


def test_answers_from_flags_file_and_stdin(console: Console, machine: list[Device]) -> None:
    file = console.write("box.yaml", "inside: eth2\noutside: none\nblock_list: none\n")
    console.ok("init", "--wizard", "--answers", file, "--inside", "eth1", stdin="22\nyes\n")
    document = exported(console)
    assert document["interfaces"] == [{"name": "eth1", "role": "inside"}]
    assert "block_lists" not in document


def test_as_a_document(console: Console, machine: list[Device]) -> None:
    document = console.ok(*FLAGS, "--yes", "--output", "json").json
    assert document == {"name": "default", "created": True, "api_key": document["api_key"]}
    assert document["api_key"]


def test_an_empty_store_is_taken_and_its_key_stays(console: Console, machine: list[Device]) -> None:
    console.ok("init")
    assert console.ok(*FLAGS, "--yes").out == ""
    assert len(exported(console)["interfaces"]) == 2


def test_a_second_time_it_changes_nothing(console: Console, machine: list[Device]) -> None:
    console.ok(*FLAGS, "--yes")
    before = exported(console)
    result = console(*FLAGS, "--yes")
    assert result.code == 4
    assert "configured already: it has eth0, eth1" in result.err
    assert "marchproxy reset" in result.err
    assert exported(console) == before


@pytest.mark.parametrize(
    ("words", "typed", "code", "said"),
    [
        (("--inside", "eth7", "--yes"), "", 5, "inside: 'eth7' is not valid"),
        (("--inside", "eth0", "--outside", "eth0", "--yes"), "", 5, "outside: 'eth0' is not valid"),
        (("--inside", "none", "--yes"), "", 5, "inside: 'none' is not valid"),
        (("--block-list", "/nowhere", "--yes"), "", 3, "'/nowhere' does not exist"),
        (("--block-list", "-", "--yes"), "", 5, "stdin has the answers"),
        (("--management-port", "ssh", "--yes"), "", 5, "management_port: 'ssh'"),
        ((), "eth1\neth0\n", 2, "stdin has no answer to: Give what leaves"),
        ((), "eth1\neth0\nyes\nnone\n22\nno\n", 1, "nothing was written"),
        ((), "eth1\nperhaps\n", 5, "outside: 'perhaps' is not valid"),
    ],
)
def test_what_ends_it_leaves_the_machine_as_it_was(
    console: Console, machine: list[Device], words: tuple[str, ...], typed: str, code: int, said: str
) -> None:
    result = console("init", "--wizard", *words, stdin=typed)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert nothing_written(console)


def test_ctrl_c_before_the_last_answer(
    console: Console, machine: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Questions, "agree", interrupt)
    assert console("init", "--wizard", "--inside", "eth1", "--outside", "none", stdin="\n" * 5).code == 130
    assert nothing_written(console)


def test_at_a_terminal_a_slip_is_asked_again(console: Console, machine: list[Device]) -> None:
    result = console("init", "--wizard", stdin="eth7\neth1\n\n\n\n\n\n", tty=True)
    assert result.code == 0, result.err
    assert "inside: 'eth7' is not valid" in result.err


def test_without_devices_there_is_nothing_to_choose(console: Console, machine: list[Device]) -> None:
    machine.clear()
    assert console("init", "--wizard", "--yes").code == 4


def test_without_the_wizard_its_flags_mean_nothing(console: Console) -> None:
    result = console("init", "--inside", "eth1")
    assert result.code == 2
    assert "add --wizard" in result.err


def test_under_systemd_the_service_is_guarded_and_started(
    console: Console,
    machine: list[Device],
    monkeypatch: pytest.MonkeyPatch,
    daemon: Callable[[Answers], Daemon],
) -> None:
    daemon({"GET /v1/status": (200, STATUS), "POST /v1/reload": (200, {"revision": 2})})
    done: list[Any] = []
    monkeypatch.setattr(unit, "is_managed", lambda environment: True)
    monkeypatch.setattr(unit, "is_active", lambda: False)
    monkeypatch.setattr(unit, "call", done.append)
    monkeypatch.setattr(unit, "read_variable", lambda name: None)
    monkeypatch.setattr(unit, "write_variable", lambda *said: done.append(said))
    result = console.ok(*FLAGS, "--management-port", "2222", "--yes")
    assert done == [("MARCHPROXY_MANAGEMENT_PORTS", "2222"), "start"]
    assert "the gateway runs: kernel tier, revision 7" in result.err


def test_a_gateway_that_carries_nothing_routed_says_so(
    console: Console, machine: list[Device], daemon: Callable[[Answers], Daemon]
) -> None:
    reason = "kernel 5.15.0-204-generic has no bpf_loop; programs need kernel 6.1"
    status = {**STATUS, "tier": {"name": "sockets", "reason": reason}}
    daemon({"GET /v1/status": (200, status), "POST /v1/reload": (200, {"revision": 2})})
    result = console.ok(*FLAGS, "--yes")
    assert "the gateway runs: sockets tier, revision 7" in result.err
    assert f"! listeners only, nothing that is routed is carried or denied: {reason}" in result.err
