"""worker: what a process does whose daemon is gone. (What it does with one is tested with the pool.)"""

import os
import signal
import socket
import subprocess
import sys

from rig.waiting import wait_for


def test_without_a_daemon_it_ends_by_itself_and_no_signal_of_a_terminal_ends_it_before() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        words = [str(theirs.fileno()), "1", "0"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "marchproxy.dataplane.workers.worker", *words], pass_fds=[theirs.fileno()]
        )
    try:
        # It reports: so it runs, and has said which signals it does not hear.
        assert ours.recv(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.pid, number)
        assert ours.recv(65536)
        assert worker.poll() is None
        ours.close()
        wait_for(lambda: worker.poll() is not None, "the worker to end")
        assert worker.returncode == 0
    finally:
        worker.kill()
        worker.wait()
        ours.close()
