"""counts: by the names that metrics have, before anything was counted and afterwards."""

from marchproxy.dataplane.http.counts import Changes, Mirrored, by_name


def test_everything_is_there_from_the_start() -> None:
    found = by_name(Changes(), Mirrored())
    assert {"ejected", "retried", "crowded", "mirrored", "mirror_failed", "mirror_dropped"} <= found.keys()
    assert set(found.values()) == {0}


def test_both_are_counted() -> None:
    found = by_name(Changes(kept=2), Mirrored(mirror_dropped=3))
    assert (found["kept"], found["mirror_dropped"]) == (2, 3)
