"""The command `marchproxy`. `--version` is answered here, before any import that costs: it has 20 ms."""

import sys


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    if sys.argv[1:] == ["--version"]:
        from marchproxy.version import VERSION

        sys.stdout.write(f"marchproxy {VERSION}\n")
        return 0
    from marchproxy.cli.main import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
