"""Alert rules and dashboard: what they ask for exists, and the rules say what they should."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.repo.tree import ROOT

FOLDER = ROOT / "docs" / "monitoring"
OF_OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
"""What Prometheus itself and the client library bring."""
_METRIC = re.compile(r"\b(?:marchproxy|process)_\w+|\bup(?=\{)")


def documented() -> dict[str, set[str]]:
    """Every metric of ours with its labels."""
    text = (ROOT / "docs" / "METRICS.md").read_text()
    rows = re.findall(r"^\| `(marchproxy_\w+)` \| \w+ \|([^|]*)\|", text, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def expressions(node: Any) -> Iterator[str]:
    """Every question to Prometheus in the dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str) and value != "prometheus":
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def asked() -> list[str]:
    """By dashboard and rules."""
    rules = re.findall(r"expr: (?:>-\n)?(.*?)(?=\n +(?:for|labels):)", RULES.read_text(), re.DOTALL)
    return [*expressions(json.loads(DASHBOARD.read_text())), *rules]


RULES, TEST, DASHBOARD = FOLDER / "alerts.yml", FOLDER / "alerts_test.yml", FOLDER / "dashboard.json"


def test_the_dashboard_and_the_rules_ask_for_metrics_that_exist() -> None:
    known = documented().keys() | OF_OTHERS
    questions = asked()
    assert len(questions) > 40
    for question in questions:
        found = set(_METRIC.findall(question))
        assert found, question
        assert found <= known, question


def test_they_ask_by_labels_that_these_metrics_have() -> None:
    known = documented()
    for question in asked():
        for name, matchers in re.findall(r"(marchproxy_\w+)\{([^}]*)\}", question):
            labels = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers)) - {"instance", "job"}
            assert labels <= known[name], question


def test_the_dashboard_shows_every_kind_of_fact() -> None:
    shown = " ".join(expressions(json.loads(DASHBOARD.read_text())))
    traffic = "mapping", "service", "denied", "audited", "limit"
    for kind in (*traffic, "table", "interface", "dns", "backend", "log", "lost_events"):
        assert f"marchproxy_{kind}" in shown, kind


def test_every_panel_is_numbered_placed_and_named_once() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]


def promtool(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, cwd=FOLDER)


@pytest.mark.requires(commands=["promtool"])
def test_the_rules_fire_for_what_is_wrong_and_for_nothing_else() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    done = promtool("test", "rules", TEST)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tried() -> None:
    names = re.findall(r"alert: (\w+)", RULES.read_text())
    tried = re.findall(r'alertname="(\w+)"', TEST.read_text())
    assert sorted(names) == sorted(tried)
