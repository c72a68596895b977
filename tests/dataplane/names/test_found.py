"""found: what is said about a name, also from one process to another."""

import pickle

from marchproxy.dataplane.names.found import Failure, LookupFailed


def test_why_a_name_was_not_found_travels() -> None:
    arrived = pickle.loads(pickle.dumps(LookupFailed(Failure.NXDOMAIN, 7.0)))  # noqa: S301  (our own)
    assert (arrived.failure, arrived.ttl) == (Failure.NXDOMAIN, 7.0)


def test_what_the_resolver_says_of_the_name_is_told_from_its_own_troubles() -> None:
    said = {failure for failure in Failure if failure.is_answer}
    assert said == {Failure.NXDOMAIN, Failure.NODATA, Failure.REBINDING}
