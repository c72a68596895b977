"""The store as its users see it. What a crash, a full disk or a second writer does is in files of its own."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from marchproxy.model.change import Change, Kind, diff
from marchproxy.model.documents import read_service, to_document
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.errors import StoreClosed, StoreCorrupt, StoreError, StoreMissing, StoreReadOnly
from marchproxy.store.store import Store
from tests.model.strategies import snapshots
from tests.store.build import add, appending, becoming, changed, holding, mapping, remove, service

WEB = service("web")
API = service("api", "10.0.0.2", collection="backend")
RULE = mapping("rule", "api", "web")
LAB = {"name": "lab"}


def test_a_new_store_holds_the_empty_snapshot_as_revision_1(store: Store) -> None:
    assert store.created
    assert store.snapshot() == Snapshot()
    head = store.head()
    assert (head.number, head.sha256) == (1, Snapshot().sha256())
    assert store.revisions() == [head]
    assert store.changes(1) == diff(Snapshot(clusters=()), Snapshot())


def test_settings_are_read_without_the_rest(store: Store) -> None:
    def larger(snapshot: Snapshot) -> Snapshot:
        settings = replace(snapshot.settings, flow_table=2048)
        return replace(appending(WEB)(snapshot), settings=settings)

    assert store.settings() == Snapshot().settings
    store.replace(larger, message="larger")
    assert store.settings() == store.snapshot().settings
    assert store.settings().flow_table == 2048
    store._database.query("DELETE FROM settings")
    with pytest.raises(StoreCorrupt):
        store.settings()


def test_creating_twice_changes_nothing(state_dir: Path, store: Store) -> None:
    head = store.head()
    with Store.open(state_dir, create=True) as again:
        assert not again.created
        assert again.head() == head


def test_a_missing_store_says_how_to_make_one(state_dir: Path) -> None:
    with pytest.raises(StoreMissing) as caught:
        Store.open(state_dir)
    assert caught.value.message == f"store '{state_dir / 'marchproxy.db'}' does not exist"
    assert caught.value.hint == "run: marchproxy init"
    assert not state_dir.exists()


def test_an_init_that_was_interrupted_can_be_repeated(state_dir: Path) -> None:
    """Killed between making the file and filling it, `init` leaves an empty file."""
    state_dir.mkdir()
    (state_dir / "marchproxy.db").touch()
    with pytest.raises(StoreMissing):
        Store.open(state_dir)
    assert (state_dir / "marchproxy.db").stat().st_size == 0
    with Store.open(state_dir, create=True) as store:
        assert store.created


def test_to_create_and_only_to_read_contradict_each_other(state_dir: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Store.open(state_dir, create=True, read_only=True)


def test_a_commit_is_one_revision(state_dir: Path, store: Store) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    revision = store.commit([add(Kind.SERVICE, WEB), add(Kind.SERVICE, API)], message="two", author="ada")
    assert (revision.number, revision.author, revision.message) == (2, "ada", "two")
    assert before <= revision.time <= datetime.now(UTC)
    assert revision.sha256 == store.snapshot().sha256()
    with Store.open(state_dir, read_only=True) as other:
        assert other.head() == revision
        assert other.snapshot() == store.snapshot()
        assert [to_document(item) for item in other.snapshot().clusters[0].services] == [API, WEB]


def test_a_commit_without_effect_makes_no_revision(store: Store) -> None:
    head = store.commit([add(Kind.SERVICE, WEB)], message="web")
    assert store.commit([], message="nothing") == head
    assert store.commit([changed(WEB, port=None)], message="the default, spelt out") == head
    assert store.replace(lambda snapshot: snapshot, message="the same") == head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add(Kind.SERVICE, WEB), "service 'web' already exists"),
        (changed(WEB | {"port": 1}, port=2), "service 'web' was changed meanwhile"),
        (remove(Kind.SERVICE, API), "service 'api' was removed meanwhile"),
        (add(Kind.CLUSTER, {"name": "default"}), "cluster 'default' already exists"),
        (remove(Kind.CLUSTER, {"name": "default"}), "cluster 'default' is not empty"),
    ],
)
def test_a_commit_that_contradicts_the_store_changes_nothing(
    store: Store, change: Change, message: str
) -> None:
    head = store.commit([add(Kind.SERVICE, WEB)], message="web")
    with pytest.raises(Conflict, match=message):
        store.commit([add(Kind.INTERFACE, {"name": "eth0", "role": "inside"}), change], message="no")
    assert store.head() == head
    assert store.verify() == head


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * 501, "\0"])
def test_a_message_is_one_line(store: Store, text: str) -> None:
    with pytest.raises(InvalidValue, match="message") as caught:
        store.commit([add(Kind.SERVICE, WEB)], message=text)
    assert caught.value.hint == "expected 1 to 500 printable characters on one line"
    assert store.head().number == 1


def test_an_author_is_one_line_too(store: Store) -> None:
    with pytest.raises(InvalidValue, match="author"):
        store.commit([add(Kind.SERVICE, WEB)], message="web", author="a\x1b[31m")


@pytest.mark.parametrize("text", ["it's", "'; DROP TABLE service; --", '"', "\\", "%s ? :x", "größer 🚀"])
def test_text_is_kept_as_it_is(store: Store, text: str) -> None:
    store.commit([add(Kind.SERVICE, service("web", description=text))], message=text, author=text)
    assert store.snapshot().clusters[0].services[0].description == text
    assert (store.head().message, store.head().author) == (text, text)
    assert store.changes(2)[0].after == service("web", description=text)


def test_replace_gets_what_is_there_and_gives_what_shall_be(store: Store) -> None:
    store.replace(appending(WEB), message="web")
    seen: list[Snapshot] = []

    def build(snapshot: Snapshot) -> Snapshot:
        seen.append(snapshot)
        return holding([WEB, API], [RULE])(snapshot)

    revision = store.replace(build, message="api and rule")
    assert [item.name for item in seen[0].clusters[0].services] == ["web"]
    assert store.changes(revision.number) == (add(Kind.SERVICE, API), add(Kind.MAPPING, RULE))


def test_replace_refuses_a_second_thing_of_one_name(store: Store) -> None:
    store.replace(appending(WEB), message="web")
    with pytest.raises(Conflict, match="service 'web' already exists"):
        store.replace(appending(service("web", "10.9.9.9")), message="again")
    assert store.head().number == 2


def test_replace_reads_entities_that_were_put_together_by_hand(store: Store) -> None:
    def build(snapshot: Snapshot) -> Snapshot:
        broken = replace(read_service(WEB), port=70000)
        return replace(snapshot, clusters=(replace(snapshot.clusters[0], services=(broken,)),))

    with pytest.raises(InvalidValue, match="port"):
        store.replace(build, message="no")
    assert store.head().number == 1


def test_an_error_while_building_leaves_the_store_usable(store: Store) -> None:
    def fail(snapshot: Snapshot) -> Snapshot:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.replace(fail, message="no")
    assert store.replace(appending(WEB), message="web").number == 2


def test_a_store_is_not_used_inside_its_own_transaction(store: Store) -> None:
    with pytest.raises(StoreError, match="in the middle of a transaction"):
        store.replace(lambda snapshot: store.snapshot(), message="no")
    assert store.snapshot() == Snapshot()


def test_clusters_come_and_go(store: Store) -> None:
    store.commit([add(Kind.CLUSTER, LAB), add(Kind.SERVICE, WEB, "lab")], message="lab")
    with pytest.raises(Conflict, match="cluster 'lab' is not empty"):
        store.commit([remove(Kind.CLUSTER, LAB)], message="no")
    store.commit([remove(Kind.SERVICE, WEB, "lab"), remove(Kind.CLUSTER, LAB)], message="gone")
    assert store.snapshot() == Snapshot()
    with pytest.raises(NotFound, match="cluster 'lab' does not exist"):
        store.commit([add(Kind.SERVICE, WEB, "lab")], message="no")


def test_what_a_mapping_refers_to_must_be_there_and_stay(store: Store) -> None:
    with pytest.raises(NotFound, match="service 'api' does not exist"):
        store.commit([add(Kind.SERVICE, WEB), add(Kind.MAPPING, RULE)], message="no")
    store.replace(holding([WEB, API], [RULE]), message="all")
    with pytest.raises(Conflict, match="service 'web' is in use by mapping 'rule'"):
        store.commit([remove(Kind.SERVICE, WEB)], message="no")
    with pytest.raises(Conflict, match="cluster 'default' cannot be removed"):
        store.replace(lambda snapshot: Snapshot(clusters=()), message="no")
    assert store.verify().number == 2


def test_changes_since_turn_an_old_snapshot_into_head(store: Store) -> None:
    store.replace(holding([WEB]), message="2")
    store.replace(holding([WEB, API], [RULE]), message="3")
    last = store.replace(holding([API]), message="4")
    assert store.changes_since(4) == (last, ())
    head, changes = store.changes_since(2)
    assert head == last
    assert [(change.name, change.after is None) for change in changes] == [
        ("api", False),
        ("rule", False),
        ("web", True),
        ("rule", True),
    ]


@pytest.mark.parametrize("number", [0, -1, 2, 99])
def test_a_revision_that_never_was(store: Store, number: int) -> None:
    for ask in (store.revision, store.changes, store.changes_since, store.snapshot_at, store.rollback):
        with pytest.raises(NotFound, match=f"revision {number} does not exist"):
            ask(number)
    assert store.head().number == 1


def test_revisions_are_listed_newest_first(store: Store) -> None:
    for number in range(2, 6):
        store.replace(appending(service(f"s{number}")), message=f"add s{number}")
    assert [revision.number for revision in store.revisions(3)] == [5, 4, 3]
    assert [revision.message for revision in store.revisions()][-2:] == ["add s2", "create the store"]
    assert store.revision(3) == store.revisions()[2]


def test_older_snapshots_are_rebuilt(store: Store) -> None:
    known = {1: store.snapshot()}
    for number, build in enumerate([holding([WEB]), holding([WEB, API], [RULE]), holding([])], 2):
        store.replace(build, message=f"revision {number}")
        known[number] = store.snapshot()
    assert {number: store.snapshot_at(number) for number in known} == known


def test_rollback_makes_a_new_revision_equal_to_an_old_one(state_dir: Path, store: Store) -> None:
    old = store.replace(holding([WEB, API], [RULE]), message="all")
    store.replace(holding([]), message="nothing")
    revision = store.rollback(old.number, author="ada")
    assert (revision.number, revision.sha256) == (4, old.sha256)
    assert (revision.message, revision.author) == ("roll back to revision 2", "ada")
    with Store.open(state_dir, read_only=True) as other:
        assert other.snapshot() == store.snapshot_at(2)
        assert other.verify() == revision


def test_a_rollback_can_be_rolled_back(store: Store) -> None:
    full = store.replace(holding([WEB, API], [RULE]), message="all")
    empty = store.rollback(1, message="start again")
    assert (empty.message, empty.sha256) == ("start again", Snapshot().sha256())
    assert store.rollback(full.number).sha256 == full.sha256
    assert store.rollback(full.number).number == 4, "it is there already"


def test_rollback_brings_clusters_back_and_takes_them_away(store: Store) -> None:
    store.commit([add(Kind.CLUSTER, LAB), add(Kind.SERVICE, WEB, "lab")], message="lab")
    store.rollback(1)
    assert store.snapshot().cluster("lab") is None
    store.rollback(2)
    assert store.snapshot() == store.snapshot_at(2)
    assert store.verify().number == 4


def test_what_did_not_change_stays_the_same_object(state_dir: Path, store: Store) -> None:
    """Policy compiles only what changed, and tells by identity."""
    store.replace(holding([WEB, API]), message="both")
    first = store.snapshot()
    with Store.open(state_dir) as other:
        other.commit([changed(WEB, port=81)], message="from elsewhere")
    second = store.snapshot()
    assert second.clusters[0].services[1].port == 81
    assert second.clusters[0].services[0] is first.clusters[0].services[0]
    assert store.snapshot() is second


def test_head_and_snapshot_of_one_moment(state_dir: Path, store: Store) -> None:
    with Store.open(state_dir) as other:
        other.commit([add(Kind.SERVICE, WEB)], message="web")
    head, snapshot = store.current()
    assert (head.number, head.sha256) == (2, snapshot.sha256())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(snapshots(), snapshots())
def test_any_snapshot_survives_the_tables(store: Store, first: Snapshot, second: Snapshot) -> None:
    """One store for all examples: each begins where the last one ended."""
    before = store.snapshot()
    start = store.head().number
    for wanted in (first, second):
        for item in wanted.block_lists:
            # Their contents are another test's.
            known = "INSERT OR IGNORE INTO block_contents (sha256, size) VALUES (?, 1)"
            store._database.query(known, item.sha256)
        revision = store.replace(becoming(wanted), message="any")
        assert revision.sha256 == wanted.sha256()
        store._known = None  # read it back from the tables
        assert store.snapshot() == wanted
    assert store.snapshot_at(start) == before


def test_a_damaged_row_is_named_and_not_built_upon(store: Store) -> None:
    store.replace(holding([WEB]), message="web")
    store._known = None
    store._database.query("UPDATE service SET port = 70000")
    with pytest.raises(StoreCorrupt, match='service "web": port: 70000'):
        store.snapshot()
    with pytest.raises(StoreCorrupt, match='service "web": port: 70000'):
        store.rollback(1)


def test_a_row_changed_behind_our_back_is_noticed(store: Store) -> None:
    store.replace(holding([WEB]), message="web")
    store._known = None
    store._database.query("UPDATE service SET port = 7")
    with pytest.raises(StoreCorrupt, match="revision 2 was recorded with SHA-256"):
        store.verify()
    with pytest.raises(StoreCorrupt, match="revision 1 cannot be rebuilt"):
        store.snapshot_at(1)


def test_a_store_without_revisions_is_no_store(state_dir: Path, store: Store) -> None:
    store._database.query('DELETE FROM "change"')
    store._database.query("DELETE FROM revision")
    with pytest.raises(StoreCorrupt, match="no revision"):
        store.head()
    with pytest.raises(StoreMissing):
        Store.open(state_dir)


def test_use_after_close_has_its_own_error(state_dir: Path) -> None:
    store = Store.open(state_dir, create=True)
    store.close()
    store.close()
    for use in (
        store.snapshot,
        store.head,
        store.verify,
        lambda: store.replace(appending(WEB), message="no"),
    ):
        with pytest.raises(StoreClosed, match="is closed"):
            use()


def test_closing_gives_every_file_descriptor_back(state_dir: Path) -> None:
    with Store.open(state_dir, create=True) as store:
        store.replace(appending(WEB), message="imports what is imported late")
    before = os.listdir("/proc/self/fd")
    for number in range(3):
        with Store.open(state_dir) as store:
            store.replace(appending(service(f"s{number}")), message="write")
        with pytest.raises(StoreMissing):
            Store.open(state_dir / "elsewhere")
    assert os.listdir("/proc/self/fd") == before
    assert [path.name for path in state_dir.iterdir()] == ["marchproxy.db"], "the journal was folded in"


def test_any_thread_may_use_a_store(store: Store) -> None:
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for number in range(5):
                store.replace(appending(service(f"{name}{number}")), message=name)
                store.snapshot()
        except BaseException as error:
            failures.append(error)

    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.verify().number == 16
    assert len(os.listdir("/proc/self/fd")) == before, "no thread opened a connection of its own"
    closer = threading.Thread(target=store.close)
    closer.start()
    closer.join()
    with pytest.raises(StoreClosed):
        store.head()


def test_only_reading_never_writes(state_dir: Path, store: Store) -> None:
    store.close()
    content = (state_dir / "marchproxy.db").read_bytes()
    with Store.open(state_dir, read_only=True) as reader:
        assert reader.snapshot() == Snapshot()
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            reader.replace(appending(WEB), message="no")
        with pytest.raises(StoreReadOnly):
            reader.create_cluster_key("default")
    assert (state_dir / "marchproxy.db").read_bytes() == content


def test_cluster_keys_are_not_part_of_the_snapshot(store: Store) -> None:
    head = store.head()
    key = store.create_cluster_key("default")
    assert store.verify_cluster_key("default", key)
    assert not store.verify_cluster_key("lab", key)
    later = store.rotate_cluster_key("default", overlap=timedelta(hours=1))
    soon, late = datetime.now(UTC) + timedelta(minutes=59), datetime.now(UTC) + timedelta(minutes=61)
    assert [store.verify_cluster_key("default", old, now=soon) for old in (key, later)] == [True, True]
    assert [store.verify_cluster_key("default", old, now=late) for old in (key, later)] == [False, True]
    assert len(store.cluster_keys("default")) == 2
    assert store.verify() == head


def test_the_environment_says_where_the_store_is(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCHPROXY_STATE_DIR", str(state_dir))
    with Store.open(create=True) as store:
        assert store.created
    assert (state_dir / "marchproxy.db").is_file()


def test_reading_imports_no_pydal(state_dir: Path, store: Store) -> None:
    """It takes 80 ms, more than half of what `service list` may take."""
    program = (
        "import sys, pathlib\n"
        "from marchproxy.store.store import Store\n"
        "with Store.open(pathlib.Path(sys.argv[1])) as store:\n"
        "    store.snapshot(), store.revisions(), store.verify()\n"
        "sys.exit('pydal was imported' if 'pydal' in sys.modules else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(state_dir)], check=True)
