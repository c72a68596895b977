import pytest

from marchproxy.model.documents import Document, read_interface, read_mapping, read_service
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.store.integrity import check_names, check_references
from tests.store.build import mapping, service

WEB, API = service("web"), service("api", collection="red")


def _snapshot(services: list[Document], *mappings: Document, name: str = "default") -> Snapshot:
    held = Cluster(name, tuple(map(read_service, services)), tuple(map(read_mapping, mappings)))
    return Snapshot((held,) if name == "default" else (Cluster("default"), held))


@pytest.mark.parametrize("reference", ["web", "collection:red", "all", "external"])
def test_references_to_what_is_there(reference: str) -> None:
    wanted = _snapshot([WEB, API], mapping("m", reference, "web"), mapping("n", "web", reference))
    check_references(Snapshot(), wanted)


@pytest.mark.parametrize(
    ("reference", "message"),
    [("db", "service 'db' does not exist"), ("collection:blue", "collection 'blue' does not exist")],
)
def test_references_to_nothing_name_it_and_who_refers(reference: str, message: str) -> None:
    wanted = _snapshot([WEB], mapping("n", "web", reference), mapping("m", reference, "web"))
    with pytest.raises(NotFound, match=message) as caught:
        check_references(Snapshot(), wanted)
    assert caught.value.hint == "mappings 'm', 'n' in cluster 'default' refers to it"


def test_a_service_of_another_cluster_is_none() -> None:
    lab = Cluster("lab", (), (read_mapping(mapping("m", "all", "web")),))
    with pytest.raises(NotFound, match="service 'web'"):
        check_references(Snapshot(), Snapshot((*_snapshot([WEB]).clusters, lab)))


def test_what_is_in_use_cannot_go() -> None:
    rule = mapping("m", "web", "collection:red")
    old = _snapshot([WEB, API], rule)
    with pytest.raises(Conflict, match="service 'web' is in use by mapping 'm'"):
        check_references(old, _snapshot([API], rule))
    with pytest.raises(Conflict, match="collection 'red' is in use by mapping 'm'") as caught:
        check_references(old, _snapshot([WEB, service("api")], rule))
    assert "the last service of collection 'red'" in caught.value.hint
    check_references(old, _snapshot([]))


def test_of_many_users_some_are_named() -> None:
    rules = [mapping(f"m{number}", "web", "all") for number in range(8)]
    with pytest.raises(Conflict, match="by mappings 'm0', 'm1', 'm2', 'm3', 'm4' and 3 more"):
        check_references(_snapshot([WEB], *rules), _snapshot([], *rules))


def test_the_default_cluster_stays() -> None:
    with pytest.raises(Conflict, match="cluster 'default' cannot be removed"):
        check_references(Snapshot(), Snapshot(clusters=()))


def test_two_things_of_a_kind_have_two_names() -> None:
    eth0 = read_interface({"name": "eth0", "role": "inside"})
    check_names(_snapshot([WEB, API], mapping("web", "web", "api")))
    for twice, message in [
        (_snapshot([WEB, WEB]), "service 'web'"),
        (_snapshot([], mapping("m", "all", "all"), mapping("m", "external", "all")), "mapping 'm'"),
        (Snapshot(interfaces=(eth0, eth0)), "interface 'eth0'"),
        (Snapshot((Cluster("default"), Cluster("default"))), "cluster 'default'"),
    ]:
        with pytest.raises(Conflict, match=f"{message} already exists"):
            check_names(twice)
