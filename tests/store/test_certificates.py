"""certificates: kept with sealed keys, in no revision, and not removed while somebody uses them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from marchproxy.model.certificate import Origin, Purpose
from marchproxy.model.change import Change, Kind
from marchproxy.model.documents import Document
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.store.store import Store
from marchproxy.store.x509 import fits
from tests.certificates import signed
from tests.store.build import add, mapping, remove, service

YEAR = timedelta(days=365)
SITE = [service("lan"), service("db")]
RULE = mapping("db", "lan", "db", listen="10.0.0.1:7000", tls="proxy")
LISTENER = {"name": "explicit@10.0.0.1:3128", "kind": "explicit", "bind": "10.0.0.1:3128", "tls": "proxy"}


def site(store: Store, *more: Document) -> None:
    kinds = {"kind": Kind.LISTENER, "protocols": Kind.MAPPING}
    changes = [add(Kind.SERVICE, item) for item in SITE]
    for item in more:
        changes.append(add(next(kind for key, kind in kinds.items() if key in item), item))
    store.commit(changes, message="site")


def with_cluster(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, clusters=(*snapshot.clusters, Cluster("lab")))


def without_cluster(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, clusters=snapshot.clusters[:1])


def test_one_is_added_and_its_key_sealed(store: Store, state_dir: Path) -> None:
    material = signed("a.example")
    made = store.certificates.add("default", "proxy", material)
    assert (made.qualified, made.origin, made.facts) == ("proxy", Origin.ADDED, material.facts)
    assert store.certificates.find("default", "proxy") == made
    assert store.certificates.every() == [made]
    kept = b"".join(path.read_bytes() for path in state_dir.iterdir())
    assert material.key.split(b"\n")[1] not in kept
    assert b"PRIVATE KEY" not in kept
    (identity,) = store.certificates.open({"proxy"}).identities
    assert (identity.chain, identity.key) == (material.chain, material.key)


def test_it_is_in_no_revision(store: Store) -> None:
    head = store.head()
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    store.certificates.renew("default", "proxy", YEAR)
    assert store.head() == head
    assert b"a.example" not in store.snapshot().canonical()


def test_names_are_taken_once_and_ca_never(store: Store) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    with pytest.raises(Conflict, match="exists already"):
        store.certificates.add("default", "proxy", signed("a.example"))
    with pytest.raises(Conflict, match="exists already"):
        store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    with pytest.raises(Conflict, match="own CA"):
        store.certificates.add("default", "ca", signed("a.example"))
    with pytest.raises(Conflict, match="own CA"):
        store.certificates.generate("default", "ca", ["a.example"], YEAR)
    with pytest.raises(InvalidValue):
        store.certificates.add("default", "two words", signed("a.example"))
    with pytest.raises(NotFound, match="cluster"):
        store.certificates.add("nowhere", "proxy", signed("a.example"))
    with pytest.raises(NotFound, match="cluster"):
        store.certificates.generate("nowhere", "proxy", ["a.example"], YEAR)


def test_a_refused_host_leaves_no_ca_behind(store: Store) -> None:
    with pytest.raises(InvalidValue):
        store.certificates.generate("default", "proxy", ["two words"], YEAR)
    assert store.certificates.every() == []


def test_a_cluster_has_one_ca_of_its_own(store: Store) -> None:
    store.replace(with_cluster, message="lab")
    for cluster in ("default", "lab"):
        store.certificates.generate(cluster, "proxy", ["a.example"], YEAR)
        store.certificates.generate(cluster, "web", ["b.example"], YEAR)
    found = {each.qualified: each for each in store.certificates.every()}
    assert set(found) == {"ca", "proxy", "web", "lab/ca", "lab/proxy", "lab/web"}
    assert found["proxy"].facts.issuer == found["web"].facts.issuer == found["ca"].facts.subject
    assert found["lab/proxy"].facts.issuer == found["lab/ca"].facts.subject != found["ca"].facts.subject
    assert [each.name for each in store.certificates.every("lab")] == ["ca", "proxy", "web"]


def test_renewing_keeps_hosts_and_changes_keys(store: Store) -> None:
    before = store.certificates.generate("default", "proxy", ["a.example", "10.0.0.1"], timedelta(days=30))
    key = store.certificates.open({"proxy"}).identities[0].key
    after = store.certificates.renew("default", "proxy", YEAR)
    assert after.facts.hosts == before.facts.hosts
    assert after.facts.expires > before.facts.expires
    assert store.certificates.open({"proxy"}).identities[0].key != key
    ca = store.certificates.find("default", "ca")
    with pytest.raises(InvalidValue, match="days"):
        store.certificates.renew("default", "ca", YEAR)
    store.certificates.renew("default", "ca")
    assert store.certificates.find("default", "ca").facts.fingerprint != ca.facts.fingerprint


def test_renewing_keeps_what_one_is_for(store: Store) -> None:
    store.certificates.generate("default", "edge", ["a.example"], YEAR, purpose=Purpose.CLIENTS)
    for made in (store.certificates.find("default", "edge"), store.certificates.renew("default", "edge")):
        assert (fits(made.chain, Purpose.CLIENTS), fits(made.chain, Purpose.SERVERS)) == (True, False)


def test_one_for_another_purpose_is_not_used(store: Store) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR, purpose=Purpose.CLIENTS)
    with pytest.raises(Conflict, match="is not for servers"):
        site(store, RULE)
    shown = add(Kind.SERVICE, service("app", tls=True, tls_cert="proxy"))
    store.commit([shown], message="shown")
    with pytest.raises(Conflict, match="in use by service 'app'"):
        store.certificates.remove("default", "proxy")
    store.certificates.generate("default", "web", ["a.example"], YEAR)
    with pytest.raises(Conflict, match="is not for clients"):
        store.commit([add(Kind.SERVICE, service("api", tls=True, tls_cert="web"))], message="wrong")


def test_what_listens_gets_no_other_that_is_for_clients_only(store: Store) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    site(store, RULE)
    held = store.certificates.find("default", "proxy")
    other = signed("a.example", purpose=Purpose.CLIENTS)
    with pytest.raises(Conflict, match="used by mapping 'db', and the other one is not for servers"):
        store.certificates.replace("default", "proxy", other)
    assert store.certificates.find("default", "proxy") == held
    store.certificates.replace("default", "proxy", signed("a.example"))


def test_what_was_added_is_replaced_by_files_alone(store: Store) -> None:
    store.certificates.add("default", "proxy", signed("a.example"))
    with pytest.raises(Conflict, match="was not generated here"):
        store.certificates.renew("default", "proxy", YEAR)
    other = signed("b.example")
    assert store.certificates.replace("default", "proxy", other).facts == other.facts
    store.certificates.generate("default", "web", ["c.example"], YEAR)
    assert store.certificates.replace("default", "web", other).origin is Origin.ADDED
    with pytest.raises(Conflict, match="own CA"):
        store.certificates.replace("default", "ca", other)
    with pytest.raises(NotFound):
        store.certificates.replace("default", "none", other)


@pytest.mark.parametrize("user", [RULE, LISTENER])
def test_what_is_used_is_not_removed(store: Store, user: Document) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    site(store, user)
    with pytest.raises(Conflict, match=r"in use by (mapping 'db'|listener 'explicit@10.0.0.1:3128')"):
        store.certificates.remove("default", "proxy")
    with pytest.raises(Conflict, match="in use by certificate 'proxy'"):
        store.certificates.remove("default", "ca")
    store.commit([remove(Kind.LISTENER if "kind" in user else Kind.MAPPING, user)], message="no more")
    store.certificates.remove("default", "proxy")
    store.certificates.remove("default", "ca")
    assert store.certificates.every() == []
    with pytest.raises(NotFound):
        store.certificates.remove("default", "proxy")


@pytest.mark.parametrize("user", [RULE, LISTENER])
def test_nobody_uses_what_is_not_there(store: Store, user: Document) -> None:
    with pytest.raises(NotFound, match="certificate 'proxy'") as caught:
        site(store, user)
    assert "cert add" in caught.value.hint
    store.certificates.generate("default", "web", ["a.example"], YEAR)
    with pytest.raises(NotFound, match="certificate 'ca'"):
        site(store, {**user, "tls": "ca"})
    assert store.head().number == 1


def test_of_another_cluster_it_is_another_one(store: Store) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    store.replace(with_cluster, message="lab")
    change = Change(Kind.SERVICE, "lab", "lan", None, SITE[0])
    rule = Change(Kind.MAPPING, "lab", "db", None, {**RULE, "destinations": ["lan"]})
    with pytest.raises(NotFound, match="certificate 'lab/proxy'"):
        store.commit([change, rule], message="lab")


def test_a_cluster_whose_certificate_a_listener_uses_stays(store: Store) -> None:
    store.replace(with_cluster, message="lab")
    store.certificates.generate("lab", "proxy", ["a.example"], YEAR)
    listener = {**LISTENER, "tls": "lab/proxy"}
    store.commit([add(Kind.LISTENER, listener)], message="proxy")
    with pytest.raises(Conflict, match="in use by listener"):
        store.replace(without_cluster, message="no lab")
    store.commit([remove(Kind.LISTENER, listener)], message="no proxy")
    store.replace(without_cluster, message="no lab")
    assert store.certificates.every() == []


def test_a_rollback_wants_what_it_names(store: Store) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    site(store, RULE)
    number = store.head().number
    store.commit([remove(Kind.MAPPING, RULE)], message="no db")
    store.certificates.remove("default", "proxy")
    with pytest.raises(NotFound, match="certificate 'proxy'"):
        store.rollback(number)
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    store.rollback(number)


def test_a_trial_goes_back_even_to_what_has_lost_its_certificate(store: Store) -> None:
    store.replace(with_cluster, message="lab")
    store.certificates.generate("lab", "proxy", ["a.example"], YEAR)
    changes = [
        Change(Kind.SERVICE, "lab", "lan", None, SITE[0]),
        Change(Kind.MAPPING, "lab", "db", None, {**RULE, "destinations": ["lan"]}),
    ]
    store.commit(changes, message="lab")
    before = store.snapshot()
    store.replace(without_cluster, message="no lab", trial=60)
    trial = store.trial()
    assert trial is not None
    store.revert(trial)
    assert store.snapshot() == before
    assert store.certificates.open({"lab/proxy"}).failures == ("certificate lab/proxy is not there",)


def test_nothing_is_removed_during_a_trial(store: Store) -> None:
    store.certificates.generate("default", "proxy", ["a.example"], YEAR)
    site(store, RULE)
    store.commit([remove(Kind.MAPPING, RULE)], message="no db", trial=60)
    with pytest.raises(Conflict, match=r"trial|confirm"):
        store.certificates.remove("default", "proxy")


def test_a_key_that_does_not_open_is_no_reason_to_be_without_the_others(
    store: Store, state_dir: Path
) -> None:
    store.certificates.add("default", "old", signed("a.example"))
    (state_dir / "secret.key").rename(state_dir / "gone")
    store.certificates.add("default", "new", signed("b.example"))
    opened = store.certificates.open({"old", "new", "none"})
    assert [each.name for each in opened.identities] == ["new"]
    assert {each.name for each in opened.certificates} == {"old", "new"}
    missing, unreadable = opened.failures
    assert missing == "certificate none is not there"
    assert unreadable.startswith("the key of certificate 'old' does not open with the key in")


def test_a_sealed_key_opens_for_its_own_name_only(store: Store) -> None:
    store.certificates.add("default", "one", signed("a.example"))
    store.certificates.add("default", "other", signed("b.example"))
    with store._database.writing():
        [(sealed,)] = store._database.query("SELECT sealed FROM certificate WHERE name = 'one'")
        store._database.query("UPDATE certificate SET sealed = ? WHERE name = 'other'", sealed)
    assert [each.name for each in store.certificates.open({"one", "other"}).identities] == ["one"]


def test_nobody_asks_for_none(store: Store) -> None:
    assert store.certificates.open(frozenset()).certificates == ()
