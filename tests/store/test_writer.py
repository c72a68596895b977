import re

import pytest

from marchproxy.model.change import Change, Kind
from marchproxy.model.documents import Document
from marchproxy.model.errors import Conflict, InvalidValue
from marchproxy.store.store import Store
from marchproxy.store.writer import insert, update
from tests.store.build import add, changed, holding, mapping, remove, service

WEB = service("web")
LAB = {"name": "lab"}


def _names(store: Store, table: str) -> list[str]:
    with store._database.writing() as dal:
        return [row.name for row in dal(dal[table]).select(orderby=dal[table].name)]


def test_one_change_writes_one_row_however_much_there_is(store: Store) -> None:
    store.replace(holding([service(f"s{number}") for number in range(300)] + [WEB]), message="many")
    seen: list[str] = []
    store._database._connection.set_trace_callback(seen.append)
    store.commit([changed(WEB, port=81)], message="one")
    writes = [sql for sql in seen if not sql.startswith(("SELECT", "BEGIN", "COMMIT"))]
    assert [re.findall(r"\w+", sql)[:3] for sql in writes] == [
        ["INSERT", "INTO", "revision"],
        ["INSERT", "INTO", "change"],
        ["UPDATE", "service", "SET"],
    ]


def test_many_rows_go_in_few_statements(store: Store) -> None:
    store.replace(holding([service(f"s{number}") for number in range(1100)]), message="many")
    seen: list[str] = []
    store._database._connection.set_trace_callback(seen.append)
    store.replace(holding([]), message="none")
    # SQLite shows a statement again for each row of which it looks whether it has tokens.
    gone = {sql.split(" WHERE ")[1] for sql in seen if sql.startswith('DELETE FROM "service"')}
    assert len(gone) == 3
    assert _names(store, "service") == []


def test_only_the_cluster_that_is_meant_changes(store: Store) -> None:
    both = [add(Kind.CLUSTER, LAB), add(Kind.SERVICE, WEB), add(Kind.SERVICE, WEB, "lab")]
    store.commit(both, message="the same name twice")
    store.commit([changed(WEB, port=81)], message="default's")
    ports = "SELECT c.name, s.port FROM service s JOIN cluster c ON s.cluster = c.id ORDER BY c.name"
    assert store._database.query(ports) == [("default", 81), ("lab", None)]
    store.commit([remove(Kind.SERVICE, WEB, "lab"), remove(Kind.CLUSTER, LAB)], message="lab's")
    assert store._database.query(ports) == [("default", 81)]


def test_every_kind_is_added_changed_and_removed(store: Store) -> None:
    known = "INSERT INTO block_contents (sha256, size) VALUES (?, 1)"
    store._database.query(known, "0" * 64)
    rule = mapping("rule", "all", "external")
    eth0 = {"name": "eth0", "role": "inside"}
    things: dict[Kind, tuple[Document, Document]] = {
        Kind.SERVICE: (WEB, {"port": 8}),
        Kind.MAPPING: (rule, {"priority": 8}),
        Kind.INTERFACE: (eth0, {"mode": "tc"}),
        Kind.CLUSTER: (LAB, {"audit": True}),
        Kind.BLOCK: ({"name": f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.example"}, {"reason": "x"}),
        Kind.BLOCK_LIST: ({"name": "bad", "sha256": "0" * 64, "entries": 9}, {"entries": 1_000_000}),
        Kind.LIMIT: ({"name": "fast", "per": "total", "flows_per_second": 9}, {"bytes_per_second": 10**11}),
    }
    for kind, (document, fields) in things.items():
        first = add(kind, document)
        second = Change(kind, first.cluster, first.name, document, document | fields)
        for change in (first, second, Change(kind, first.cluster, first.name, second.after, None)):
            head = store.commit([change], message=f"{kind}")
            assert store.changes(head.number) == (change,)
            store._known = None
            assert store.verify() == head
        assert document["name"] not in _names(store, kind)
    assert set(things) | {Kind.LISTENER, Kind.SETTINGS} == set(Kind)


def test_a_listener_comes_and_goes(store: Store) -> None:
    dns = {"name": "dns@*:53", "kind": "dns", "bind": "*:53"}
    for change in (add(Kind.LISTENER, dns), remove(Kind.LISTENER, dns)):
        head = store.commit([change], message="dns")
        store._known = None
        assert store.changes(head.number) == (change,)
        assert store.verify() == head


def test_settings_are_always_there_and_only_change(store: Store) -> None:
    strict = {"refusal": "drop", "timeout_udp": 30, "resolvers": ["192.0.2.53"]}
    for change in (
        Change(Kind.SETTINGS, "", "settings", {}, strict),
        Change(Kind.SETTINGS, "", "settings", strict, {}),
    ):
        head = store.commit([change], message="settings")
        store._known = None
        assert store.changes(head.number) == (change,)
        assert store.verify() == head
        assert _names(store, "settings") == ["settings"]
    assert store.snapshot() == store.snapshot_at(1)
    with pytest.raises(Conflict, match="settings cannot be removed"):
        store.commit([Change(Kind.SETTINGS, "", "settings", {}, None)], message="none")


def test_what_a_validator_refuses_is_an_invalid_value(store: Store) -> None:
    with store._database.writing() as dal:
        with pytest.raises(InvalidValue, match="name: 'a b' is not valid") as caught:
            insert(dal.cluster, name="a b")
        assert caught.value.expected == "name: 'a b' is not valid"
        with pytest.raises(InvalidValue, match="name"):
            update(dal, dal.cluster.name == "default", name="")
    assert _names(store, "cluster") == ["default"]
