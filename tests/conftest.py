"""The test run as a whole: what the machine offers, what a test may ask of it, and no silent skips.

``@pytest.mark.requires("root", "tcx", commands=["curl"])`` skips a test where one of these is missing, and
says which. With CI=true a skip fails the run, unless the kernel, asked again, really lacks that feature;
MARCHPROXY_EXCUSES=none fails it then, too: a release is checked where all of it can be.
"""

import ctypes
import gc
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.examples import MORE
from tests.features import FEATURES, excused, probe

# Two cores shared with network namespaces: a slow example says nothing about the code.
settings.register_profile("marchproxy", deadline=None, max_examples=100 * MORE)
settings.load_profile("marchproxy")


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what runs in the background with SIGINT ignored; children inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        _keep_apart()
    config.addinivalue_line(
        "markers", f"requires(*features, commands=[]): features are {', '.join(FEATURES)}"
    )


def _keep_apart() -> None:
    """Give a worker of pytest-xdist its own network: no port that a test found free is taken meanwhile."""
    if os.geteuid() == 0:
        os.unshare(os.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_collection_finish() -> None:
    """Ten thousand tests and all that they import stay to the end: whoever looks for garbage leaves them out.

    What runs in an event loop does so after each test; that took 0.1 s, most of the time of most of them.
    """
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    answers = probe()
    missing = [answer for answer in answers.values() if answer is not None]
    user = "root" if os.geteuid() == 0 else "not root"
    return [
        f"machine: kernel {platform.release()}, {_clang()}, {_libbpf()}, {user}",
        f"features: {', '.join(missing) or 'all of ' + ' '.join(answers)}",
    ]


def _clang() -> str:
    try:
        said = subprocess.run(["clang", "-dumpversion"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no clang"
    return f"clang {said.stdout.strip()}"


def _libbpf() -> str:
    try:
        version = ctypes.CDLL("libbpf.so.1").libbpf_version_string
    except (OSError, AttributeError):
        return "no libbpf.so.1"
    version.restype = ctypes.c_char_p
    return f"libbpf {version().decode().removeprefix('v')}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        for feature in mark.args:
            if feature not in FEATURES:
                pytest.fail(f"requires({feature!r}): known are {', '.join(FEATURES)}", pytrace=False)
            answer = probe()[feature]
            if answer is not None:
                pytest.skip(answer)
        for command in mark.kwargs.get("commands", ()):
            if shutil.which(command) is None:
                pytest.skip(f"{command} is not installed; `make test` does that")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge_skip(report)
    return report


def _judge_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn an unexcused skip into a failure in CI. Expected failures are reported as skips too, and stay."""
    if os.environ.get("CI") not in {"true", "1"} or not report.skipped or hasattr(report, "wasxfail"):
        return
    assert isinstance(report.longrepr, tuple)
    path, line, reason = report.longrepr
    reason = reason.removeprefix("Skipped: ")
    if os.environ.get("MARCHPROXY_EXCUSES") == "none":
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: skipped, which nothing excuses here: {reason}"
    elif not excused(reason):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: skipped, and no missing kernel feature excuses it: {reason}"


@pytest.fixture(scope="session", autouse=True)
def no_machine_state(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Keep the machine's own appliance out of every test, and every test out of it.

    Tests that need a store or a daemon make folders of their own; this catches the ones that forget to.
    """
    folder = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE_DIR", "RUNTIME_DIR", "BPFFS"):
            patch.setenv(f"MARCHPROXY_{name}", str(folder / name.lower()))
        for name in ("DATABASE_URL", "DB_TYPE", "MARCHPROXY_TOKEN"):
            patch.delenv(name, raising=False)
        yield folder
