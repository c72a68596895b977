"""The daemon about itself."""

from marchproxy.dataplane.status import COMPONENTS, Problem
from tests.dataplane.facts import status


def test_one_problem_is_enough_to_be_unhealthy() -> None:
    assert status().healthy
    assert not status(Problem("tier", "eth0: gone")).healthy


def test_a_problem_reads_component_first() -> None:
    assert str(Problem(COMPONENTS[0], "revision 4 cannot be carried out")) == (
        "policy: revision 4 cannot be carried out"
    )
