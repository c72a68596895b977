"""The command line of series."""

from pathlib import Path

import pytest

from benchmarks.series.__main__ import ALL, main, measured
from benchmarks.series.packets import PacketSeries
from benchmarks.series.results import Point, Run


def test_the_list_has_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [one.name for one in ALL]


@pytest.mark.parametrize("words", [["nothing"], ["--rounds", "0"], ["--seconds", "0"], ["--seconds", "many"]])
def test_what_cannot_be_measured_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_a_file_that_is_no_run_is_an_error_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--load", str(tmp_path / "none.json")]) == 1
    assert "no saved run of series" in capsys.readouterr().err


def test_a_series_that_fails_does_not_keep_others_from_being_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_run: Run, _report: object) -> None:
        raise OSError(19, "No such device")

    def works(run: Run, _report: object) -> None:
        run.points.append(Point("good", "TC", 1, 0, 1e-7))

    monkeypatch.setattr("benchmarks.series.__main__.RESULTS", tmp_path)
    wanted = [PacketSeries(name, "", "", "", how) for name, how in (("bad", fails), ("good", works))]
    run = measured(wanted, 1, 0.1)
    assert run.failures == ["bad: [Errno 19] No such device"]
    assert run.lines("good") == ["TC"]


def test_a_run_that_is_stopped_is_saved_as_far_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(run: Run, _report: object) -> None:
        run.points.append(Point("odd", "TC", 1, 0, 1e-7))
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.series.__main__.RESULTS", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measured([PacketSeries("odd", "odd packets", "flows", "ns", stopped)], 1, 0.1)
    (file,) = tmp_path.iterdir()
    assert Run.load(file).lines("odd") == ["TC"]
