"""location: folders come from the environment, so that several appliances run side by side."""

from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import location


def test_the_usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MARCHPROXY_BPFFS", "MARCHPROXY_RUNTIME_DIR"):
        monkeypatch.setenv(name, "")
    assert location.pin_root() == Path("/sys/fs/bpf/marchproxy")
    assert location.pin_directory() == Path(f"/sys/fs/bpf/marchproxy/v{bpf.ABI}")
    assert location.link_directory() == location.pin_directory() / "links"
    assert location.sysctl_record() == Path("/run/marchproxy/sysctls.json")


def test_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCHPROXY_BPFFS", "/sys/fs/bpf/second")
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", "/run/second")
    assert location.pin_directory() == Path(f"/sys/fs/bpf/second/v{bpf.ABI}")
    assert location.sysctl_record() == Path("/run/second/sysctls.json")
