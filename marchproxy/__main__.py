"""The command `marchproxy`. `--version` is answered here, before any import that costs: it has 20 ms."""

import gc
import sys


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
        from marchproxy.cli.main import run
    except KeyboardInterrupt:
        return 130
    code = run()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
