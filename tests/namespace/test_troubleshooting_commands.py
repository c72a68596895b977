"""docs/TROUBLESHOOTING.md: every command in its blocks is executed, on the appliance of the first guide.

One client is served, refused, and not answered all the time. Whether the commands find causes:
test_troubleshooting.py.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from subprocess import CompletedProcess

import pytest

from rig import Appliance, Rig
from rig.waiting import wait_for
from tests.namespace.pages import DOCS, Shell, blocks, fences, hosts, setting

pytestmark = [
    pytest.mark.requires(
        "root",
        "netns",
        "veth",
        "bpf",
        "bpffs",
        "btf",
        commands=["curl", "bash", "tshark", "nft", "/usr/bin/python3"],
    ),
    # Whoever comes first waits for eight commands at once, each of which compiles what it asks the kernel.
    pytest.mark.timeout(300),
]

PAGE = DOCS / "TROUBLESHOOTING.md"
COMMANDS = list(
    dict.fromkeys(
        line.partition(" #")[0].strip() for block in blocks(PAGE) for line in block.text.splitlines()
    )
)
# What is useful in what they print; of the others it is that they succeed.
USEFUL = {
    "marchproxy flows --denied --source 10.1.0.2": r"10\.1\.0\.2:\d+ +10\.2\.0\.2:8080 +tcp +NO_MAPPING ",
    "marchproxy explain --from 10.1.0.2 --to web --port 443": r"allow.*surfing",
    "sudo marchproxy trace latency --service web --duration 5s": (
        r"web  connect: \d+, mean (?s:.*)web  unanswered"
    ),
    "sudo marchproxy trace retransmits --service web --duration 5s": (
        r"passing +10\.1\.0\.2:\d+ \(lan\) +10\.2\.0\.2:443 \(web\)"
    ),
    "sudo marchproxy trace drops --duration 5s": r"NO_SOCKET +\w+ +inside0 +udp +10\.1\.0\.2:\d+ \(lan\)",
    "sudo marchproxy trace latency --duration 5s": r"web  request: \d+, mean ",
    "sudo marchproxy trace retransmits --duration 5s --rate 100 --output json": r'"sender": "passed"',
    "sudo marchproxy trace drops --all --duration 5s --output json": r'"reason": "NO_SOCKET"',
    "marchproxy capture --denied --packets 10 | tshark -r - -T fields -e ip.src -e ip.dst -e frame.comment": (
        r"10\.1\.0\.2\t10\.2\.0\.2\treason=NO_MAPPING "
    ),
    "ssh root@gateway marchproxy capture --service web --duration 1h | wireshark -k -i -": (
        r"reason=FORWARDED mapping=surfing flow=\d+ direction=\w+ taken=\w+ tier=tc"
    ),
    "marchproxy status": r"serving(?s:.*)NO_MAPPING +\d+",
    "marchproxy capture --denied --packets 20 | tshark -r - -T fields -e frame.comment": (
        r"reason=NO_MAPPING "
    ),
}
CLIENT = """
while :; do
  curl --silent http://10.2.0.2/ >/dev/null
  curl --silent --max-time 2 http://10.2.0.2:8080/
  echo >/dev/udp/10.1.0.1/9999
  sleep 0.1
done
"""
UNANSWERED = "while :; do curl --silent --max-time 3 https://10.2.0.2/; done"
SILENT = """
table inet silent {
  chain input {
    type filter hook input priority 0;
    tcp dport 443 drop
  }
}
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with hosts() as built:
        built.server.run(["nft", "-f", "-"], stdin=SILENT)
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="page") as built:
        yield built


@pytest.fixture(scope="module")
def shell(rig: Rig, appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(rig, appliance, tmp_path_factory.mktemp("page"))
    made.follow(setting())
    # Another computer's: who is asked there is this appliance, and who looks goes when enough was seen, which
    # ends what writes to a pipe (128 and SIGPIPE).
    made.provide("ssh", 'shift; "$@" || [ $? = 141 ]')
    made.provide("wireshark", "exec tshark -r - -c 5 -T fields -e frame.comment")
    clients = [rig.client.popen(["bash", "-c", script]) for script in (CLIENT, UNANSWERED)]
    wait_for(lambda: appliance.json("flows", "--denied"), "the first refusal")
    yield made
    for client in clients:
        client.kill()


@pytest.fixture(scope="module")
def looking(shell: Shell) -> Iterator[Mapping[str, Future[CompletedProcess[str]]]]:
    """Commands that mostly wait, all at once."""
    with ThreadPoolExecutor(len(COMMANDS)) as pool:
        yield {each: pool.submit(shell.run, each) for each in COMMANDS if " trace " in each}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_works(
    shell: Shell, looking: Mapping[str, Future[CompletedProcess[str]]], command: str
) -> None:
    result = looking[command].result() if command in looking else shell.run(command)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(USEFUL.get(command, ""), result.stdout), result.stdout
    for name in re.findall(r"--(?:write|bundle) (\S+)", command):
        check_file(shell, name)


def check_file(shell: Shell, name: str) -> None:
    """What somebody who is sent it would look for."""
    if name.endswith(".pcapng"):
        comments = shell.run(f"tshark -r {name} -T fields -e frame.comment").stdout
        assert "reason=FORWARDED mapping=surfing " in comments
    else:
        with tarfile.open(shell.folder / name) as bundle:
            assert len(bundle.getnames()) > 5


def test_nothing_on_the_page_is_left_out() -> None:
    assert set(fences(PAGE)) == {"sh"}
    assert len(fences(PAGE)) == len(blocks(PAGE))
    assert USEFUL.keys() <= set(COMMANDS)
    assert len(COMMANDS) == len(set(COMMANDS))
