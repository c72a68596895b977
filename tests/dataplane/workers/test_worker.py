"""worker: what a process does whose daemon is gone. (What it does with one is tested with the pool.)"""

import os
import signal
import socket
import subprocess
import sys

from marchproxy.dataplane.http.rates import share
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers.channel import Channel
from marchproxy.dataplane.workers.worker import Worker
from rig.waiting import wait_for
from tests.certificates import identity
from tests.dataplane.loops import looped, until


def test_without_a_daemon_it_ends_by_itself_and_no_signal_of_a_terminal_ends_it_before() -> None:
    ours, theirs = socket.socketpair()
    rates = share()
    with theirs:
        words = [str(theirs.fileno()), "1", str(rates), "0", "console"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "marchproxy.dataplane.workers.worker", *words],
            pass_fds=[theirs.fileno(), rates],
        )
    os.close(rates)
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


@looped
async def test_it_speaks_tls_with_what_it_is_told() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, lambda message, descriptors: None, lambda: None)
    worker = Worker(theirs)
    channel.say(messages.Prove((identity(),)))
    await until(lambda: worker._contexts.server("proxy") is not None)
    channel.say(messages.Prove(()))
    await until(lambda: worker._contexts.server("proxy") is None)
    assert "PRIVATE" not in repr(messages.Prove((identity(),)))
    channel.close()
    await worker._admission.close()
    worker._channel.close()


def test_it_loads_nothing_that_only_some_plans_or_the_daemon_need() -> None:
    """Each worker pays for it in memory, from its start."""
    program = "import sys, marchproxy.dataplane.workers.worker; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    others = ("dns", "h2", "cryptography", "pydal", "prometheus_client", "importlib.metadata", "email")
    ours = ("http.listeners", "http.http3", "names.lookup", "tier", "supervisor", "kernel.tier", "control")
    unwanted = {*others, *(f"marchproxy.dataplane.{each}" for each in ours)}
    assert not unwanted & set(ran.stdout.split())
