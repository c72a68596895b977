"""finding: three ways to say something."""

from marchproxy.dataplane.doctor.finding import Severity, error, fine, warning


def test_each_says_how_bad_it_is() -> None:
    assert fine("a", "b").severity is Severity.OK
    assert warning("a", "b", "c").severity is Severity.WARNING
    assert error("a", "b", "c").severity is Severity.ERROR
    assert (error("a", "b", "c").evidence, error("a", "b", "c").fix) == ("b", "c")
