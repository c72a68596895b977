"""A machine for every test."""

from pathlib import Path

import pytest

from marchproxy.dataplane.doctor import network
from tests.dataplane.doctor.patient import Patient


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    made = Patient(tmp_path)
    monkeypatch.setattr(network, "look", made.devices.get)
    return made
