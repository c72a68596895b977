"""Runs `marchproxy` command lines, each in a process of its own that has everything imported already.

Asked over the Unix socket that is its stdin, by messages with four descriptors: where the answer goes, then
the command's stdin, stdout and stderr. The answer is the process id on a line, and at the end the exit code
on another. Ends with the asker.
"""

import json
import os
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import Any

from marchproxy.__main__ import main
from marchproxy.cli.main import COMMANDS

MAX_REQUEST = 1 << 17
HEAVY = frozenset({"run", "trace", "tui"})
"""Commands whose libraries would make every fork dearer."""


def serve(asked: socket.socket) -> None:
    """Fork for each request, until the asker is gone."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, MAX_REQUEST, 4)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            _run(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _run(request: dict[str, Any], answer: int, *streams: int) -> None:
    """Become the command; does not return."""
    os.write(answer, b"%d\n" % os.getpid())
    code = 1
    try:
        _become(request, streams)
        code = main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    # What an interpreter does at its end takes longer than most commands, and tells nothing.
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(answer, b"%d\n" % code)
    os._exit(code)


def _become(request: dict[str, Any], streams: tuple[int, ...]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["marchproxy", *request["words"]]
    namespace = os.open(request["namespace"], os.O_RDONLY)
    os.setns(namespace, os.CLONE_NEWNET)
    os.close(namespace)


if __name__ == "__main__":
    # Nobody waits for the commands; Ctrl-C is for whoever asks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in COMMANDS:
        if name not in HEAVY:
            import_module(f"marchproxy.cli.{name}")
    serve(socket.socket(fileno=os.dup(0)))
