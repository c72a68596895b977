"""totals: what several have counted, added up, and kept when one of them ends."""

from marchproxy.dataplane.records import Denials, LimitState, TableFill, Traffic
from marchproxy.dataplane.workers.messages import Facts
from marchproxy.dataplane.workers.totals import Totals
from marchproxy.model.reason import Reason

ONE = Facts(
    counters={Reason.FORWARDED: Traffic(1, 10), Reason.NO_MAPPING: Traffic(2, 0)},
    denials=(Denials(Reason.NO_MAPPING, "", audited=False, traffic=Traffic(2, 0)),),
    limits=(LimitState("slow", Traffic(1, 1), Traffic(0, 0)),),
    fill=(TableFill("tunnels", 3, 100),),
    problems=("one",),
)
OTHER = Facts(
    counters={Reason.FORWARDED: Traffic(4, 40)},
    denials=(
        Denials(Reason.NO_MAPPING, "", audited=False, traffic=Traffic(5, 0)),
        Denials(Reason.DENY_MAPPING, "default/m", audited=True, traffic=Traffic(1, 0)),
    ),
    limits=(
        LimitState("slow", Traffic(2, 2), Traffic(1, 1)),
        LimitState("fast", Traffic(0, 0), Traffic(0, 0)),
    ),
    fill=(TableFill("tunnels", 4, 100),),
    problems=("other",),
)


def test_everything_is_added_up() -> None:
    total = Totals.of([ONE, OTHER])
    assert total.counters == {Reason.FORWARDED: Traffic(5, 50), Reason.NO_MAPPING: Traffic(2, 0)}
    assert [(each.reason, each.audited, each.traffic.packets) for each in total.denials] == [
        (Reason.NO_MAPPING, False, 7),
        (Reason.DENY_MAPPING, True, 1),
    ]
    assert total.limits == (
        LimitState("slow", Traffic(3, 3), Traffic(1, 1)),
        LimitState("fast", Traffic(0, 0), Traffic(0, 0)),
    )
    assert total.fill == (TableFill("tunnels", 7, 200),)


def test_of_one_that_has_ended_only_what_was_counted_is_kept() -> None:
    kept = Totals.retired(ONE)
    assert (kept.counters, kept.denials, kept.limits) == (ONE.counters, ONE.denials, ONE.limits)
    assert (kept.fill, kept.problems) == ((), ())
    assert Totals.joined(kept, OTHER).problems == ("other",)
