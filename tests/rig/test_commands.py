"""Commands that are forked are like commands that are started."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.commands import Commands
from rig.host import Host
from rig.lifecycle import unique_name
from rig.waiting import RigError

pytestmark = pytest.mark.requires("root", "netns")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(unique_name(), tmp_path)
    yield made
    made.close()


@pytest.fixture
def run(host: Host, tmp_path: Path) -> "Iterator[Runner]":
    with Commands() as commands:
        yield Runner(commands, host, tmp_path)


class Runner:
    def __init__(self, commands: Commands, host: Host, folder: Path) -> None:
        self.commands, self.host, self.folder = commands, host, folder

    def __call__(self, *words: str, stdin: str = "", timeout: float = 30) -> tuple[int, str, str]:
        env = {"MARCHPROXY_STATE_DIR": str(self.folder / "state"), "MARCHPROXY_RUNTIME_DIR": str(self.folder)}
        done = self.commands.run(words, namespace=self.host.path, env=env, stdin=stdin, timeout=timeout)
        return done.returncode, done.stdout, done.stderr


def test_streams_environment_and_exit_code_are_its_own(run: Runner) -> None:
    code, out, err = run("service", "list")
    assert (code, out) == (3, "")
    assert str(run.folder / "state") in err
    assert run("init")[0] == 0
    services = {"services": [{"name": "web", "addresses": ["10.0.0.1"], "description": "Läden"}]}
    assert run("apply", "-f", "-", stdin=json.dumps(services))[0] == 0
    code, out, err = run("service", "list", "--output", "json")
    assert (code, err) == (0, "")
    assert [row["description"] for row in json.loads(out)] == ["Läden"]
    assert run("service", "show", "nobody")[0] == 3
    assert run("no-such-verb")[0] == 2


def test_it_is_in_the_network_of_its_host(run: Runner) -> None:
    run.host.ip("link add mine type veth peer name other")
    assert run("init")[0] == 0
    assert run("interface", "add", "mine", "--role", "inside")[0] == 0
    assert run("interface", "add", "nobodys", "--role", "inside")[0] == 0
    _, out, _ = run("doctor")
    assert "mine is down" in out
    assert "there is no device nobodys" in out


def test_several_at_once(run: Runner) -> None:
    outcomes = list[int]()
    threads = [
        threading.Thread(target=lambda: outcomes.append(run("version", "--output", "json")[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [0] * 4


def test_one_that_takes_too_long_is_ended(run: Runner) -> None:
    run("init")
    with pytest.raises(RigError, match=r"marchproxy run --no-bpf took longer than 0\.5 s"):
        run("run", "--no-bpf", timeout=0.5)
