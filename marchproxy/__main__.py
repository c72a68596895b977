"""The command `marchproxy`. `--version` is answered here, before any import that costs: it has 20 ms."""

import gc
import os
import sys

_STATUS = {("status",): "table", ("status", "--output", "json"): "json"}
"""Command lines that are not worth a parser, which would double their time, and the form of their answers."""


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    if sys.argv[1:] == ["--version"]:
        from marchproxy.version import VERSION

        sys.stdout.write(f"marchproxy {VERSION}\n")
        return 0
    # Looking for garbage among modules that are just being loaded, and again at the end, takes 15 ms of 60
    # for a command. Those that stay (`run`, `flows --follow`) switch it on again.
    gc.disable()
    try:
        code = _run()
    except KeyboardInterrupt:
        return 130
    gc.freeze()
    return code


def _run() -> int:
    form = _STATUS.get(tuple(sys.argv[1:]))
    if form and "_MARCHPROXY_COMPLETE" not in os.environ:
        from marchproxy.cli import glance

        return glance.run(form)
    from marchproxy.cli.main import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
