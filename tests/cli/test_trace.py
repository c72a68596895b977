"""`marchproxy trace`: refusals. What BCC sees: tests/namespace/test_tracing.py."""

import os
import sys

import pytest

from tests.cli.console import Console


@pytest.mark.requires("root", "btf")
@pytest.mark.parametrize("python", [sys.executable, "/nowhere/python3"])
@pytest.mark.parametrize("question", ["latency", "retransmits", "drops"])
def test_without_bcc_it_says_what_to_install(site: Console, question: str, python: str) -> None:
    site.variables["MARCHPROXY_BCC_PYTHON"] = python
    result = site("trace", question)
    assert result.code == 1
    assert f"BCC is not installed: {python} cannot import bcc" in result.err
    assert "apt install python3-bpfcc" in result.err


def test_without_root(site: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = site("trace", "drops")
    assert result.code == 7
    assert "sudo" in result.err


def test_values_that_cannot_be_meant(site: Console) -> None:
    assert site("trace", "latency", "--duration", "0").code == 5
    assert site("trace", "latency", "--duration", "2d").code == 5
    assert site("trace", "drops", "--rate", "0").code == 2
    assert site("trace", "drops", "--all", "--service", "web").code == 2
    assert site("trace").code == 2
    assert site("trace", "drops", "--service", "nobody").code == 3
