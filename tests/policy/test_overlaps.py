"""Services that share addresses."""

from marchproxy.policy.overlaps import overlaps
from tests.policy.build import cluster, mapping, plan, service, texts

OFFICE = service("office", "10.0.0.0/16")
FLOOR = service("floor", "10.0.9.0/24", "10.7.0.1")
TWIN = service("twin", "10.7.0.1")
WEB = service("web", "10.1.0.1")
HINT = "a mapping for one of them is also for those addresses of the other"


def test_each_pair_is_told_once() -> None:
    made = plan(OFFICE, FLOOR, TWIN, WEB, mapping("m", "office,floor,twin", "web"))
    (found,) = overlaps(made)
    assert texts([found]) == [
        "warning services of cluster default: share addresses: "
        "floor with office (10.0.9.0/24) and floor with twin (10.7.0.1/32)"
    ]
    assert found.hint == HINT


def test_many_are_counted() -> None:
    crowd = [service(f"s{number}", f"10.0.{number}.0/24") for number in range(12)]
    names = ",".join(each.name for each in crowd)
    (found,) = overlaps(plan(OFFICE, WEB, *crowd, mapping("m", f"office,{names}", "web")))
    assert found.message.endswith(" and 4 more")


def test_only_services_of_one_cluster_that_rules_name_are_looked_at() -> None:
    other = cluster(TWIN, WEB, mapping("m", "twin", "web"), name="other")
    assert list(overlaps(plan(FLOOR, WEB, mapping("m", "floor", "web"), other))) == []
    assert list(overlaps(plan(OFFICE, FLOOR, WEB, mapping("m", "floor", "web")))) == []
