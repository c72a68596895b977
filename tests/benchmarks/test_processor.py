"""Processor time of the machine."""

import os
import subprocess
import sys
import time

from benchmarks.processor import busy_during, family, spent, unused_seconds


def test_idle_waiting_and_stolen_time_is_nobodys_work() -> None:
    stat = "cpu  100 1 200 300 40 5 6 7 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\nintr 1\n"
    assert unused_seconds(stat) == (300 + 40 + 7) / os.sysconf("SC_CLK_TCK")


def test_work_keeps_a_processor_busy() -> None:
    def spin() -> str:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        return "done"

    result, busy = busy_during(spin)
    assert result == "done"
    # The clock of idle processors ticks a hundred times a second, on each of them.
    assert busy >= 0.3 - 0.02 * (os.cpu_count() or 1)


def test_a_family_spends_what_its_members_do() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    argv = ["sh", "-c", f'{sys.executable} -c "{spin}"; true']
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        members = family(shell.pid)
        assert len(members) == 2
        assert 0.25 <= spent(members) < 5
        assert spent(members[:1]) < 0.2
