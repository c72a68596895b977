"""A network namespace that plays a host."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from rig.lifecycle import NETNS, remove_namespace
from rig.process import TAIL, Process
from rig.waiting import RigError

SYSCTLS = {
    # Addresses are usable at once: nobody else is on these links, so duplicate detection only costs a second.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.core.somaxconn": "8192",
}
"""What every host starts with; the rest is the kernel's default."""


class Host:
    """One host. Programs enter by `nsenter --net`, for `ip netns exec` mounts a /sys that hides bpffs."""

    def __init__(self, name: str, files: Path) -> None:
        """Create namespace `name`; the output of its programs goes to `files`."""
        self.name = name
        self.ipv4 = ""
        """Its address on its first link."""
        self.ipv6 = ""
        self._files = files
        self._processes: list[Process] = []
        checked(["ip", "netns", "add", name])
        self.sysctl(SYSCTLS)
        self.ip("link set lo up")

    @property
    def path(self) -> Path:
        """The namespace, as nsenter and setns take it."""
        return NETNS / self.name

    def enter(self, argv: Sequence[str]) -> list[str]:
        """`argv` as run in this host."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; `RigError` after `timeout` seconds, or if it fails and `check`."""
        return checked(self.enter(argv), timeout=timeout, check=check, env=env, stdin=stdin)

    def popen(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Process:
        """Start a program here; it ends with the rig at the latest."""
        log = self._files / f"{self.name}-{len(self._processes)}-{Path(argv[0]).name}.log"
        process = Process(self.enter(argv), log=log, env=env)
        self._processes.append(process)
        return process

    def call[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a Python function in a thread that is in this host; sockets it makes stay here for good."""
        outcome: Future[T] = Future()

        def enter() -> None:
            try:
                with self.path.open() as namespace:
                    os.setns(namespace.fileno(), os.CLONE_NEWNET)
                outcome.set_result(function(*args, **kwargs))
            except BaseException as error:
                outcome.set_exception(error)

        # Not an executor: that would wait for the thread, and Ctrl-C would have to wait with it.
        threading.Thread(target=enter, name=self.name, daemon=True).start()
        return outcome.result()

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket of this host, to be used and closed by the caller."""
        return self.call(socket.socket, family, kind)

    def sysctl(self, values: Mapping[str, str]) -> None:
        """Set sysctls, named with dots."""

        def write() -> None:
            for name, value in values.items():
                Path("/proc/sys", *name.split(".")).write_text(value)

        self.call(write)

    def ip(self, *commands: str) -> None:
        """Run `ip` commands (`link set eth0 mtu 1400`) here, all or up to the first that fails."""
        checked(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(commands) + "\n")

    def add_address(self, interface: str, *prefixes: str) -> None:
        """Give an interface more addresses (`10.1.0.66/24`): more clients, or more backends."""
        # Without nodad an IPv6 address could not be bound at once; IPv4 ignores the word.
        self.ip(*(f"address add {prefix} dev {interface} nodad" for prefix in prefixes))

    def close(self) -> None:
        """End its programs and take the namespace away. May be called twice."""
        for process in reversed(self._processes):
            process.stop()
        remove_namespace(self.name)


def checked(
    argv: Sequence[str],
    *,
    timeout: float = 30.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; `RigError` where it is missing, takes too long, or fails and `check`."""
    command = " ".join(argv)
    try:
        result = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=None if env is None else {**os.environ, **env},
        )
    except FileNotFoundError:
        raise RigError(f"{argv[0]} is not installed", hint=f"needed for: {command}") from None
    except subprocess.TimeoutExpired:
        raise RigError(f"{command} took longer than {timeout:g} s") from None
    if check:
        expect_success(result)
    return result


def expect_success(result: subprocess.CompletedProcess[str]) -> None:
    """`RigError` with what it said where a program has failed."""
    if result.returncode != 0:
        said = (result.stderr or result.stdout)[-TAIL:].strip()
        raise RigError(f"{' '.join(result.args)} failed with {result.returncode}", hint=said)
