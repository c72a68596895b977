"""Accounts at CAs: a key of their own, sealed, and so many orders an hour."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marchproxy.model.errors import Conflict, NotFound
from marchproxy.store import acmeaccounts
from marchproxy.store.acmeaccounts import MOST_ORDERS
from marchproxy.store.store import Store

CA, OTHER = "https://ca.example/directory", "https://other.example/directory"


def test_a_key_is_made_once_for_each_and_nobody_reads_it(tmp_path: Path) -> None:
    with Store.open(tmp_path, create=True) as store:
        accounts = store.acme_accounts
        key = accounts.key("default", CA, "")
        assert accounts.key("default", CA, "") == key
        assert len({key, accounts.key("default", CA, "a@example"), accounts.key("default", OTHER, "")}) == 3
        with pytest.raises(NotFound):
            accounts.key("nowhere", CA, "")
    with Store.open(tmp_path) as store:
        assert store.acme_accounts.key("default", CA, "") == key
    body = key.splitlines()[1]
    assert not any(body in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_orders_are_counted_for_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    monkeypatch.setattr(acmeaccounts, "_now", lambda: now)
    with Store.open(tmp_path, create=True) as store:
        accounts = store.acme_accounts
        for _ in range(MOST_ORDERS):
            accounts.begin("default", CA, "")
        with pytest.raises(Conflict, match="20 orders at https"):
            accounts.begin("default", CA, "")
        accounts.begin("default", OTHER, "")
        for moved in (timedelta(hours=1), timedelta(days=-300)):
            now += moved
            accounts.begin("default", CA, "")


def test_with_its_cluster_it_is_gone(tmp_path: Path) -> None:
    with Store.open(tmp_path, create=True) as store:
        store.acme_accounts.key("default", CA, "")
        with store._database.writing() as dal:
            dal(dal.cluster.name == "default").delete()
        with pytest.raises(NotFound):
            store.acme_accounts.key("default", CA, "")
