"""Backends that requests leave out: told when they go and come back, and shown meanwhile."""

from dataclasses import replace
from ipaddress import ip_address

from marchproxy.dataplane.outliers import Outliers
from marchproxy.dataplane.records import BackendState, Outlier

ONE = Outlier("web", ip_address("10.0.0.1"), 80, 1000.0, "it answers 503")


def test_the_first_process_and_the_last_one_are_told_of() -> None:
    told: list[BackendState] = []
    outliers = Outliers(told.append)
    outliers.look([])
    outliers.look([ONE])
    outliers.look([replace(ONE, processes=2)])
    [state] = outliers.states()
    assert (state.check, state.up, state.why) == ("requests", False, "it answers 503 (in 2 processes)")
    outliers.look([])
    assert [(each.up, each.why) for each in told] == [(False, "it answers 503"), (True, "")]
    assert told[0].since == 1000.0
    assert told[1].since > 1000.0
    assert not outliers.states()
