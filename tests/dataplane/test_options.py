"""What the environment says about a daemon."""

import os
from pathlib import Path

import pytest

from marchproxy.cli.context import Environment
from marchproxy.dataplane.logs import LogFormat
from marchproxy.dataplane.options import DEFAULT_METRICS, MOST_WORKERS, RunOptions
from marchproxy.model.errors import InvalidValue


def test_without_an_environment_everything_has_its_usual_place() -> None:
    options = RunOptions.from_environment({})
    assert options == RunOptions(workers=options.workers)
    assert options.workers == min(os.cpu_count() or 1, MOST_WORKERS)
    assert (options.state_dir, options.runtime_dir) == (None, Path("/run/marchproxy"))
    assert (str(options.metrics), options.drain) == ("127.0.0.1:9090", 10.0)


def test_the_environment_is_obeyed() -> None:
    options = RunOptions.from_environment(
        {
            "MARCHPROXY_STATE_DIR": "/srv/state",
            "MARCHPROXY_RUNTIME_DIR": "/srv/run",
            "MARCHPROXY_METRICS_LISTEN": "[::1]:9191",
            "MARCHPROXY_DRAIN_SECONDS": "0",
            "MARCHPROXY_WORKERS": "3",
        },
        no_bpf=True,
        verbosity=2,
    )
    assert (options.state_dir, options.runtime_dir) == (Path("/srv/state"), Path("/srv/run"))
    assert (str(options.metrics), options.drain) == ("[::1]:9191", 0.0)
    assert (options.no_bpf, options.verbosity) == (True, 2)


def test_a_database_comes_before_the_folder_as_for_the_command_line() -> None:
    """The two would use different stores."""
    for elsewhere in ({"DATABASE_URL": "postgresql://db/x"}, {"DB_TYPE": "mysql"}):
        environment = {"MARCHPROXY_STATE_DIR": "/srv/state", **elsewhere}
        assert RunOptions.from_environment(environment).state_dir is None
        assert Environment(variables=environment).state_dir is None


@pytest.mark.parametrize(("text", "listens"), [("off", False), ("OFF", False), ("", True)])
def test_metrics_can_be_switched_off(text: str, listens: bool) -> None:
    options = RunOptions.from_environment({"MARCHPROXY_METRICS_LISTEN": text})
    assert options.metrics == (DEFAULT_METRICS if listens else None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MARCHPROXY_METRICS_LISTEN", "9090"),
        ("MARCHPROXY_METRICS_LISTEN", "localhost:9090"),
        ("MARCHPROXY_DRAIN_SECONDS", "ten"),
        ("MARCHPROXY_DRAIN_SECONDS", "-1"),
        ("MARCHPROXY_DRAIN_SECONDS", "99999"),
    ],
)
def test_a_value_that_cannot_be_meant_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        RunOptions.from_environment({name: text})
    assert caught.value.field == name


def test_the_log_s_format_is_the_flag_s_or_the_environment_s() -> None:
    said = {"MARCHPROXY_LOG_FORMAT": " JSON "}
    assert RunOptions.from_environment({}).log_format is LogFormat.CONSOLE
    assert RunOptions.from_environment(said).log_format is LogFormat.JSON
    assert RunOptions.from_environment(said, log_format="console").log_format is LogFormat.CONSOLE
    with pytest.raises(InvalidValue, match="log format"):
        RunOptions.from_environment({}, log_format="xml")
