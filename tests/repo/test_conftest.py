"""tests/conftest.py: a skip says what is missing, and in CI only a missing kernel feature excuses it."""

import pytest

from tests import features

pytestmark = pytest.mark.usefixtures("invented_machine")


@pytest.fixture
def invented_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "root": None,
        "tcx": "kernel lacks tcx (Invalid argument)",
        "xdp": "cannot try xdp (Operation not permitted)",
    }
    monkeypatch.setattr(features, "probe", lambda: answers)
    monkeypatch.setattr("tests.conftest.probe", lambda: answers)
    for name in ("CI", "MARCHPROXY_EXCUSES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ci(invented_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")


def run_one(pytester: pytest.Pytester, body: str) -> pytest.RunResult:
    pytester.makepyfile(f"import pytest\n{body}\ndef test_it(): pass")
    return pytester.runpytest_inprocess("-ra", "-p", "tests.conftest", "-p", "no:hypothesispytest")


def test_what_is_there_runs(pytester: pytest.Pytester) -> None:
    run_one(pytester, "@pytest.mark.requires('root', commands=['sh'])").assert_outcomes(passed=1)


def test_a_missing_feature_skips_and_is_named(pytester: pytest.Pytester) -> None:
    result = run_one(pytester, "@pytest.mark.requires('root', 'tcx')")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["features: kernel lacks tcx*", "SKIPPED*kernel lacks tcx (Invalid*"])


def test_a_missing_command_skips_and_is_named(pytester: pytest.Pytester) -> None:
    result = run_one(pytester, "@pytest.mark.requires(commands=['no-such-command'])")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*no-such-command is not installed*"])


def test_an_unknown_feature_fails(pytester: pytest.Pytester) -> None:
    run_one(pytester, "@pytest.mark.requires('warp')").assert_outcomes(errors=1)


@pytest.mark.usefixtures("ci")
def test_ci_excuses_what_the_kernel_lacks(pytester: pytest.Pytester) -> None:
    run_one(pytester, "@pytest.mark.requires('tcx')").assert_outcomes(skipped=1)


@pytest.mark.usefixtures("ci")
def test_a_release_excuses_not_even_that(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCHPROXY_EXCUSES", "none")
    result = run_one(pytester, "@pytest.mark.requires('tcx')")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped, which nothing excuses here: kernel lacks tcx*"])


@pytest.mark.usefixtures("ci")
def test_ci_excuses_expected_failures(pytester: pytest.Pytester) -> None:
    run_one(pytester, "@pytest.mark.xfail(run=False)").assert_outcomes(xfailed=1)


@pytest.mark.parametrize(
    "mark",
    [
        "@pytest.mark.requires('xdp')",
        "@pytest.mark.requires(commands=['no-such-command'])",
        "@pytest.mark.skip(reason='too slow')",
        "@pytest.mark.skip(reason='kernel lacks root')",
        "@pytest.mark.skip(reason='kernel lacks patience')",
    ],
)
@pytest.mark.usefixtures("ci")
def test_ci_excuses_nothing_else(pytester: pytest.Pytester, mark: str) -> None:
    result = run_one(pytester, mark)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped, and no missing kernel feature excuses it*"])


@pytest.mark.usefixtures("ci")
def test_ci_excuses_no_skipped_module(pytester: pytest.Pytester) -> None:
    result = run_one(pytester, "pytest.importorskip('no_such_module')")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*skipped, and no missing kernel feature excuses it*"])
