"""`GET /v1/top`."""

from pathlib import Path

from marchproxy.dataplane.control.api import ControlApi
from marchproxy.dataplane.toplists import TopQuestion
from tests.dataplane import facts
from tests.dataplane.control.clients import ask, serving
from tests.dataplane.loops import looped


@looped
async def test_who_carries_most(tmp_path: Path) -> None:
    appliance, path = facts.StandIn(), tmp_path / "s"
    async with serving(path, ControlApi(appliance).handle):
        row = {"name": "web", "flows": 2, "packets": 30, "bytes": 400}
        rates = {"packets_per_s": 1.5, "bytes_per_s": 20.0}
        assert (await ask(path, "GET", "/v1/top")).document == {
            "by": "service",
            "denied": False,
            "rows": [row | rates],
            "total": 3,
            "seconds": 2.0,
        }
        answer = await ask(path, "GET", "/v1/top?by=reason&sort=packets&limit=7")
        assert answer.document["rows"] == [row | rates | {"mapping": "m"}]
        answer = await ask(path, "GET", "/v1/top?by=source&denied=1&sort=packets")
        assert answer.document["rows"] == [row | rates | {"bytes": None, "bytes_per_s": None}]
        assert answer.document["denied"] is True
        assert appliance.tops == [
            (TopQuestion("service"), "bytes_per_s", 20),
            (TopQuestion("reason"), "packets", 7),
            (TopQuestion("source", denied=True), "packets", 20),
        ]
        for query in ("by=port", "sort=-bytes", "limit=0", "text=x", "denied=yes"):
            assert (await ask(path, "GET", f"/v1/top?{query}")).status == 400
