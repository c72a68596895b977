"""Names that a shell may complete."""

import socket
from typing import Any, cast

import pytest
import typer

from marchproxy.cli import suggest
from tests.cli.console import Console


class Context:
    """As much of a context as completion has."""

    def __init__(self, console: Console, **params: Any) -> None:
        self.obj = console.environment()
        self.params = params


def context(console: Console, **params: Any) -> typer.Context:
    return cast("typer.Context", Context(console, **params))


@pytest.fixture
def town(site: Console) -> Console:
    """A second cluster, a collection and an interface beside what `site` has."""
    site.ok("cluster", "add", "lab")
    site.ok("service", "add", "db", "--address", "10.5.0.1", "--cluster", "lab", "--collection", "data")
    site.ok("interface", "add", "eth7", "--role", "inside")
    site.ok("listener", "add", "dns", "--bind", "*:53")
    return site


def test_names_are_of_the_cluster_that_was_typed(town: Console) -> None:
    assert suggest.services(context(town), "") == ["clients", "web"]
    assert suggest.services(context(town, cluster="lab"), "") == ["db"]
    assert suggest.services(context(town, cluster="nowhere"), "") == []
    assert suggest.mappings(context(town), "") == ["cw"]
    assert suggest.clusters(context(town), "") == ["default", "lab"]
    assert suggest.interfaces(context(town), "") == ["eth7"]
    assert suggest.listeners(context(town), "") == ["dns@*:53"]
    assert suggest.listener_kinds(context(town), "") == ["dns", "explicit"]


def test_references_have_collections_and_everyone(town: Console) -> None:
    assert suggest.references(context(town, cluster="lab"), "") == [
        "db",
        "collection:data",
        "external",
        "all",
    ]


def test_references_go_on_behind_a_comma(town: Console) -> None:
    assert suggest.references(context(town), "web,cl") == [
        "web,clients",
        "web,web",
        "web,external",
        "web,all",
    ]


def test_devices_are_the_machines_but_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    assert suggest.devices(cast("typer.Context", None), "") == ["eth0"]


def test_without_a_store_there_is_nothing_to_offer(console: Console) -> None:
    assert suggest.services(context(console), "") == []
    console.write("state", "no folder")
    assert suggest.clusters(context(console), "") == []


def test_certificates_are_of_the_cluster_that_was_typed(town: Console) -> None:
    town.ok("cert", "generate", "proxy", "--host", "p.example")
    town.ok("cert", "generate", "inner", "--host", "i.example", "--cluster", "lab")
    assert suggest.certificates(context(town), "") == ["ca", "proxy"]
    assert suggest.certificates(context(town, cluster="lab"), "") == ["ca", "inner"]
