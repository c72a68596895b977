"""Retries are a share of requests."""

from marchproxy.dataplane.http.budget import MOST, SMALL, Budget


def test_a_share_of_requests_and_a_few() -> None:
    budget = Budget()
    assert [budget.spend() for _ in range(int(SMALL) + 1)] == [True] * int(SMALL) + [False]
    spent = 0
    for _ in range(1000):
        budget.earn(0.2)
        spent += budget.spend()
    assert 198 <= spent <= 200


def test_what_is_saved_up_is_bounded() -> None:
    budget = Budget()
    for _ in range(100_000):
        budget.earn(1.0)
    assert sum(budget.spend() for _ in range(1000)) == MOST
