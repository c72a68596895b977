"""What the wizard writes."""

from dataclasses import replace

import pytest

from marchproxy.cli import unit
from marchproxy.cli.firstboot import Wish, refuse_configured, write
from marchproxy.model.entities import Interface, Role
from marchproxy.model.errors import Conflict
from tests.cli.console import Console

WISH = Wish((Interface("eth1", Role.INSIDE),), None, (22,), start=True)


def test_it_is_one_revision(console: Console) -> None:
    done = write(console.environment(), WISH, managed=False)
    assert done.created
    assert done.key
    assert console.ok("export").json["interfaces"] == [{"name": "eth1", "role": "inside"}]
    assert console.ok("cluster", "list", "--output", "json").json[0]["name"] == "default"


def test_somebody_was_quicker(console: Console) -> None:
    refuse_configured(console.environment())
    write(console.environment(), WISH, managed=False)
    with pytest.raises(Conflict, match="configured already: it has eth1"):
        refuse_configured(console.environment())
    with pytest.raises(Conflict, match="configured already: it has eth1"):
        write(console.environment(), replace(WISH, interfaces=()), managed=False)


def test_one_that_runs_is_restarted_for_its_environment_alone(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(unit, "is_active", lambda: True)
    monkeypatch.setattr(unit, "call", said.append)
    monkeypatch.setattr(unit, "read_variable", lambda name: "2222,22")
    monkeypatch.setattr(unit, "write_variable", lambda name, value: said.append(value))
    write(console.environment(), replace(WISH, ports=(22, 2222)), managed=True)
    assert said == []


def test_one_that_has_to_know_another_port_is_restarted(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(unit, "is_active", lambda: True)
    monkeypatch.setattr(unit, "call", said.append)
    monkeypatch.setattr(unit, "read_variable", lambda name: None)
    monkeypatch.setattr(unit, "write_variable", lambda name, value: said.append(value))
    write(console.environment(), replace(WISH, ports=(22, 2222)), managed=True)
    assert said == ["22,2222", "restart"]
