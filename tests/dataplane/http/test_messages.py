"""What a status says about what follows."""

import pytest

from marchproxy.dataplane.http.messages import Response


@pytest.mark.parametrize(
    ("status", "interim"), [(100, True), (101, False), (103, True), (199, True), (200, False), (999, False)]
)
def test_another_answer_follows_1xx_but_101(status: int, interim: bool) -> None:
    assert Response(status, "", (), None).interim is interim
