"""Everything at a glance."""

from textual.pilot import Pilot
from textual.widgets import Sparkline

from marchproxy.tui.app import MarchProxyApp
from tests.tui.stage import Stage, perform, picture, until


def test_traffic_between_two_looks_is_a_rate_and_a_curve() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        counters = {"FORWARDED": {"packets": 1_000_000_000, "bytes": 10**12}}
        stage.document = {**stage.document, "counters": counters}
        await until(pilot, lambda: "Tbit/s" in picture(app))
        await until(
            pilot, lambda: max(app.query_one("#curve-bits Sparkline", Sparkline).data or [0]) > 10**12
        )

    perform(stage, play)


def test_what_is_wrong_is_said_in_words() -> None:
    stage = Stage()
    stage.document = {
        **stage.document,
        "healthy": False,
        "problems": ["tier: no BPF here"],
        "interfaces": [
            {"name": "in0", "role": "inside", "mode": "auto", "attached": "", "problem": "does not exist"}
        ],
        "backends": [
            {
                "service": "web",
                "address": "10.2.0.10",
                "port": 8080,
                "check": "http",
                "state": "down",
                "checked": True,
                "drained": True,
                "since": "",
                "why": "HTTP 503",
            }
        ],
        "warnings": ["certificates: proxy expires soon"],
        "certificates": [
            {"name": "proxy", "hosts": ["p.example"], "usable": True, "expires": "2099-01-01T00:00:00.000Z"},
            {"name": "old", "hosts": ["o.example"], "usable": True, "expires": "2020-01-01T00:00:00.000Z"},
            {"name": "none", "hosts": [], "usable": False, "expires": ""},
        ],
        "lost_events": 1234,
    }

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        shown = picture(app)
        assert "✗ tier: no BPF here" in shown
        assert "not attached" in shown
        assert "does not exist" in shown
        assert "✗ 10.2.0.10:8080" in shown
        assert "down" in shown
        assert "HTTP 503" in shown
        assert "1,234 events came too fast" in shown
        assert "! certificates: proxy expires soon" in shown
        assert "✓ proxy" in shown
        assert "expires 2099-01-01" in shown
        assert "✗ old" in shown
        assert "not there" in shown

    perform(stage, play, (160, 60))


def test_what_changed_last() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "add mapping no-ssh" in picture(app))

    perform(Stage(), play)
