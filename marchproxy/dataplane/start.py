"""Starts a daemon: what has to be first, then the supervisor, while what takes long is done beside."""

import gc
import resource
from contextlib import ExitStack, closing

from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.logs import configure
from marchproxy.dataplane.options import RunOptions
from marchproxy.dataplane.runtime import RuntimeDir


def run(options: RunOptions) -> int:
    """Run a daemon in the foreground until SIGTERM or SIGINT; returns the exit code 0.

    Raises `MarchproxyError` where it cannot start: another daemon, no store, a folder that may not be made.
    """
    configure(options.verbosity, options.log_format)
    _raise_descriptor_limit()
    with ExitStack() as stack:
        runtime = stack.enter_context(closing(RuntimeDir(options.runtime_dir)))
        ahead = stack.enter_context(closing(Ahead(options)))
        import asyncio

        import uvloop

        from marchproxy.dataplane.supervisor import serve

        # Switched off for commands (`__main__`), which end before there is any.
        gc.enable()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options, runtime, ahead))
    return 0


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as we may have: each connection of the sockets tier needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
