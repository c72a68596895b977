"""A change becomes one revision, or nothing at all."""

import pytest

from marchproxy.client import edits
from marchproxy.client.errors import InvalidPolicy
from marchproxy.client.writing import make_revision
from marchproxy.model.change import Kind
from marchproxy.model.documents import read_mapping, read_service
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.store import Store
from tests.cli.console import Console

OTHER = read_service({"name": "other", "addresses": ["10.0.0.2"]})
SSH = read_mapping(
    {"name": "ssh", "sources": ["clients"], "destinations": ["web"], "protocols": ["tcp"], "listen": "*:22"}
)


def test_a_change_is_one_revision_and_no_change_none(site: Console) -> None:
    appliance = site.environment()
    with Store.open(appliance.state_dir) as store:
        before = store.head().number
        made = make_revision(
            appliance, store, "add other", lambda held: edits.put(held, Kind.SERVICE, "default", OTHER)
        )
        assert (made.changed, made.revision.number, made.revision.message) == (True, before + 1, "add other")
        same = make_revision(appliance, store, "nothing", lambda held: held)
        assert (same.changed, same.revision.number) == (False, before + 1)


def test_what_contradicts_itself_is_not_written(site: Console) -> None:
    appliance = site.environment()

    def build(held: Snapshot) -> Snapshot:
        return edits.put(held, Kind.MAPPING, "default", SSH)

    with Store.open(appliance.state_dir) as store:
        before = store.head()
        with pytest.raises(InvalidPolicy, match="mapping ssh"):
            make_revision(appliance, store, "take ssh over", build)
        assert store.head() == before
