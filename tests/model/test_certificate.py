"""certificate: what is known of one without its key."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from marchproxy.model.certificate import AUTHORITY, Certificate, Facts, Origin
from marchproxy.model.names import parse_name

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = Facts(("a.example",), "CN=a", "CN=ca", "EC P-384", "0" * 64, NOW, NOW + timedelta(days=1))


def test_others_see_it_with_its_cluster() -> None:
    for cluster, name in (("default", "web"), ("lab", "lab/web")):
        assert Certificate(cluster, "web", Origin.ADDED, FACTS, NOW, "").qualified == name


def test_of_what_is_fetched_only_what_is_late_is_told() -> None:
    year = replace(FACTS, expires=NOW + timedelta(days=360))
    own = Certificate("default", "web", Origin.ADDED, year, NOW, "")
    fetched = replace(own, fetched=True)
    for ahead, told, late in ((30, 330, 330), (90, 270, 300), (0, 360, 360)):
        days = timedelta(days=ahead)
        assert own.warns(days) == NOW + timedelta(days=told)
        assert fetched.warns(days) == NOW + timedelta(days=late)


def test_a_ca_has_a_name_that_any_could_have() -> None:
    assert parse_name(AUTHORITY) == AUTHORITY
