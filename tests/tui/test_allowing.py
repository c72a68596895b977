"""From a refusal to a mapping that allows just that."""

from datetime import UTC, datetime

import pytest

from marchproxy.client import edits
from marchproxy.dataplane.control.question import read_question
from marchproxy.model.change import Kind, diff
from marchproxy.model.reason import Verdict
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.evaluate import Evaluator
from marchproxy.tui.allowing import builder, obstacle, summary
from marchproxy.tui.dialogs.why import question_of
from marchproxy.tui.words import Row
from tests.tui.stage import SNAPSHOT, decision

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STRANGER = decision(
    1, source="203.0.113.9", source_service="", destination="198.51.100.7", destination_service=""
)


@pytest.mark.parametrize(
    "row",
    [decision(1), STRANGER, decision(1, protocol="icmp", destination_port=0), decision(1, protocol="udp")],
)
def test_what_was_refused_is_allowed_and_nothing_else_changed(row: Row) -> None:
    assert obstacle(row) == ""
    wanted = builder(row)(SNAPSHOT)
    assert {change.kind for change in diff(SNAPSHOT, wanted)} <= {Kind.SERVICE, Kind.MAPPING}
    assert all(change.before is None for change in diff(SNAPSHOT, wanted))
    query = read_question(question_of(row))
    assert Evaluator(compile_plan(SNAPSHOT, now=NOW).plan).evaluate(query).verdict is Verdict.DENY
    assert Evaluator(compile_plan(wanted, now=NOW).plan).evaluate(query).verdict is Verdict.ALLOW


def test_known_services_are_used() -> None:
    wanted = builder(decision(1))(SNAPSHOT)
    assert len(wanted.clusters[0].services) == len(SNAPSHOT.clusters[0].services)
    (made,) = set(wanted.clusters[0].mappings) - set(SNAPSHOT.clusters[0].mappings)
    assert (made.sources, made.destinations) == (("clients",), ("web",))
    assert edits.find(wanted, Kind.MAPPING, "default", made.name) is made


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (decision(1, mapping="no-ssh", reason="DENY_MAPPING"), "no-ssh denies this on purpose"),
        (decision(1, reason="BLOCKED_SOURCE"), "BLOCKED_SOURCE: a mapping would not help"),
        (decision(1, protocol="47"), "protocol 47"),
    ],
)
def test_where_a_mapping_would_not_help(row: Row, says: str) -> None:
    assert says in obstacle(row)


def test_summary() -> None:
    assert summary(decision(1)) == "10.1.0.2 to 10.2.0.10:443 by tcp"
