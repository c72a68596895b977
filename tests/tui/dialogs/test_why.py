"""Which mapping decides, and how."""

from typing import Any

import pytest
from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.why import Why, question_of
from tests.tui.stage import Stage, decision, perform, picture, until


def test_the_chain_of_reasons_and_the_record() -> None:
    stage = Stage()
    row = decision(1, name="\x1b[2Jx")

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Why(row, stage.explain({})))
        await until(pilot, lambda: isinstance(app.screen, Why))
        shown = picture(app)
        assert "✗ deny, NO_MAPPING, revision 7, tier kernel" in shown
        assert "• no mapping is for port 443" in shown
        assert "source_service" in shown
        assert "\\x1b[2Jx" in shown

    perform(stage, play)


def test_what_is_asked() -> None:
    assert question_of(decision(1)) == {
        "source": "10.1.0.2",
        "destination": "10.2.0.10",
        "protocol": "tcp",
        "port": 443,
    }
    assert "port" not in question_of(decision(1, protocol="icmp"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"agrees": True, "kernel": {}}, "✓ the programs in the kernel say the same"),
        (
            {"agrees": False, "kernel": {"verdict": "allow", "reason": "FORWARDED", "mapping": "cw"}},
            "✗ the programs in the kernel say otherwise: allow, FORWARDED by mapping cw",
        ),
        ({"agrees": None, "kernel_note": "no route"}, "the kernel was not asked: no route"),
    ],
)
def test_what_the_kernel_says(fields: dict[str, Any], says: str) -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Why(decision(1), {**stage.explain({}), **fields}))
        await until(pilot, lambda: isinstance(app.screen, Why))
        assert says in picture(app)

    perform(stage, play)
