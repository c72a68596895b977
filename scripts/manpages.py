"""Writes the manual pages from the command line itself: `python scripts/manpages.py FOLDER`.

One page for `marchproxy`, and one for each of its commands, which has all of that one's verbs. The date on
them is SOURCE_DATE_EPOCH. See groff_man(7) for the macros.
"""

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from typer.main import get_command

from marchproxy.cli.errors import ExitCode
from marchproxy.cli.main import COMMANDS, PROGRAM, app
from marchproxy.version import VERSION

_EXIT = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed, or something is wrong",
    ExitCode.USAGE: "wrong usage",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.CONFLICT: "conflict: the name is taken, or something is still in use",
    ExitCode.INVALID: "invalid input",
    ExitCode.NO_DAEMON: "no daemon runs",
    ExitCode.NOT_PERMITTED: "not permitted",
    ExitCode.DENIED: "explain only: the answer is deny",
}
_FILES = {
    "/var/log/marchproxy": "HTTP requests, where a cluster logs them (MARCHPROXY_LOG_DIR)",
    "/var/lib/marchproxy": "the store and the key of its secrets (MARCHPROXY_STATE_DIR)",
    "/run/marchproxy": "the control socket of the daemon (MARCHPROXY_RUNTIME_DIR)",
    "/sys/fs/bpf/marchproxy": "programs, flows and tables in the kernel (MARCHPROXY_BPFFS)",
    "/etc/marchproxy/marchproxy.env": "environment of the service",
}


def main(folder: Path) -> None:
    """Write every page into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    root = get_command(app)
    write(folder, PROGRAM, root_page(root))
    for name in COMMANDS:
        write(folder, f"{PROGRAM}-{name}", command_page(name, root.commands[name]))  # type: ignore[attr-defined]  # a group


def write(folder: Path, name: str, lines: Iterator[str]) -> None:
    """Write one page."""
    (folder / f"{name}.1").write_text("\n".join([heading(name), *lines]) + "\n", encoding="utf-8")


def heading(name: str) -> str:
    """The line that every page begins with."""
    day = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC).date()
    return f'.TH {name.upper()} 1 {day} "{PROGRAM} {VERSION}" "{PROGRAM}"'


def root_page(root: Any) -> Iterator[str]:
    """The page of the whole."""
    yield from [".SH NAME", f"{PROGRAM} \\- {escape(root.help)}", ".SH SYNOPSIS"]
    yield from [f".B {PROGRAM}", ".I command", "[verb] [option ...]", ".SH DESCRIPTION"]
    yield "Each command has a page of its own."
    yield f"\\fB{PROGRAM}\\fR \\fIcommand\\fR \\fB\\-\\-help\\fR is its short form."
    yield from [".SH COMMANDS", *pairs({f"{PROGRAM}-{name}(1)": text for name, text in COMMANDS.items()})]
    yield from options(root)
    yield from [".SH EXIT STATUS", *pairs({str(int(code)): text for code, text in _EXIT.items()})]
    yield from [".SH FILES", *pairs(_FILES)]


def command_page(name: str, command: Any) -> Iterator[str]:
    """The page of one noun, or of a command that stands alone."""
    yield from [".SH NAME", f"{PROGRAM}-{name} \\- {escape(COMMANDS[name])}", ".SH SYNOPSIS"]
    verbs = getattr(command, "commands", None)
    named = [(f"{PROGRAM} {name} {verb}", verbs[verb]) for verb in verbs] if verbs else []
    for number, (line, one) in enumerate(named or [(f"{PROGRAM} {name}", command)]):
        yield from [".br"] if number else []
        yield f".B {escape(line)}"
        yield escape(" ".join(one.collect_usage_pieces(one.context_class(one, info_name=line))))
    if not named:
        yield from [".SH DESCRIPTION", *paragraphs(command.help), *options(command), *examples(command)]
    for line, one in named:
        yield from [f'.SH "{escape(line).upper()}"', *paragraphs(one.help)]
        yield from [*options(one, ".SS Options"), *examples(one, ".SS Examples")]
    yield from [".SH SEE ALSO", f".BR {PROGRAM} (1)"]


def options(command: Any, title: str = ".SH OPTIONS") -> Iterator[str]:
    """The flags of a command, with what they take."""
    rows = {}
    context = command.context_class(command, info_name=command.name)
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            rows[record[0]] = record[1]
    if rows:
        yield from [title, *pairs(rows)]


def examples(command: Any, title: str = ".SH EXAMPLES") -> Iterator[str]:
    """The command lines of a command's epilog, as they are typed."""
    if command.epilog:
        yield from [title, ".EX", *map(escape, command.epilog.splitlines()), ".EE"]


def pairs(rows: dict[str, str]) -> Iterator[str]:
    """A list of terms, each with its text."""
    for term, text in rows.items():
        yield from [".TP", f"\\fB{escape(term)}\\fR", escape(" ".join(text.split()))]


def paragraphs(text: str | None) -> Iterator[str]:
    """Text that is filled, a macro before each paragraph."""
    for block in re.split(r"\n\s*\n", (text or "").strip()):
        yield from [".PP", escape(" ".join(block.split()))]


def escape(text: str) -> str:
    """Text that roff takes for text: no escapes, hyphens that can be copied, no line that is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


if __name__ == "__main__":
    main(Path(sys.argv[1]))
