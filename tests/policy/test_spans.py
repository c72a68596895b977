"""What is alike on consecutive ports is said once."""

from marchproxy.policy.check import check
from marchproxy.policy.spans import spanned, spans
from tests.dataplane.plans import listener, rule
from tests.policy.build import cluster, compiled, mapping, service, snapshot, texts

WEB = service("web", "10.1.0.1", port=80)


def test_consecutive_ports_of_one_address_are_one_while_the_same_is_said() -> None:
    said = [
        *((listener(port, rule()), "a") for port in (80, 81, 82, 84)),
        *((listener(port, rule()), "b") for port in (85, 86)),
        *((listener(port, rule(), address="127.0.0.2"), "b") for port in (87, 88)),
    ]
    assert [(spanned(first, ports), what) for first, ports, what in spans(said)] == [
        ("127.0.0.1:80-82/tcp", "a"),
        ("127.0.0.1:84/tcp", "a"),
        ("127.0.0.1:85-86/tcp", "b"),
        ("127.0.0.2:87-88/tcp", "b"),
    ]


def test_nothing_said_is_nothing() -> None:
    assert list(spans([])) == []


def test_clusters_that_share_a_range_are_told_once() -> None:
    one, two = (
        cluster(WEB, mapping("m", "all", "web", "192.0.2.1:9000-9499"), name=name) for name in ("one", "two")
    )
    assert texts(compiled(one, two).plan.findings) == [
        "warning listener 192.0.2.1:9000-9499/tcp: clusters one, two share it:"
        " one's mappings may decide for the other"
    ]


def test_a_range_that_hides_the_wildcards_is_told_once() -> None:
    entities = (
        WEB,
        mapping("every", "all", "web", "*:9000-9499", action="deny"),
        mapping("own", "all", "web", "192.0.2.1:9100-9199"),
    )
    found = texts(check(snapshot(*entities), compiled(*entities)))
    assert [text for text in found if "listener" in text] == [
        "warning listener 192.0.2.1:9100-9199/tcp: has its own mappings:"
        " those of 0.0.0.0:9100-9199/tcp do not apply to it, such as denying mapping every"
    ]
