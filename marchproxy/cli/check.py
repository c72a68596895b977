"""`marchproxy check`: mistakes in what is configured."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from marchproxy.bpf.places import PINS, of_others
from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.client.control import Control
from marchproxy.model.address import IPAddress
from marchproxy.model.documents import Document
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.policy.plan import Finding

app = single()


@verb(
    app,
    "check",
    "marchproxy check",
    "marchproxy check --output json | jq '.[] | select(.severity == \"error\")'",
)
def check(context: typer.Context, output: OutputOption = TABLE) -> ExitCode:
    """Look for mistakes in what is configured

    An error keeps the daemon from taking the configuration over, and makes this command fail with exit code
    1. A warning does not: something is useless, or is not carried by this version. Host names stand for what
    the running daemon knows of them. A store of an older version is looked at as this one would leave it.
    """
    from marchproxy.policy.plan import Severity

    environment = environment_of(context)
    for version in _foreign(environment):
        environment.note(
            f"the kernel has flows in the layout of another version ({version}): this one cannot carry them "
            "over, and they end when its daemon starts"
        )
    snapshot = _configured(environment)
    if snapshot is None:
        environment.note("the store is of an older version: the daemon brings it up to date when it starts")
        return ExitCode.DONE
    findings = find_mistakes(environment, snapshot)
    ordered = sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR)
    rows = [
        {
            "name": finding.subject,
            "severity": str(finding.severity),
            "message": finding.message,
            "hint": finding.hint,
        }
        for finding in ordered
    ]
    if output is not Output.TABLE:
        environment.stdout.write(serialise(rows, output))
    elif rows:
        show_lines(environment, (line for row in rows for line in _lines(environment, row)))
    else:
        environment.note("nothing is wrong")
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    return ExitCode.FAILED if errors else ExitCode.DONE


def _foreign(environment: Environment) -> list[str]:
    """Layouts in the kernel that are neither ours nor taken over; none where that may not be looked at."""
    try:
        return [path.name for path in of_others(Path(environment.variables.get("MARCHPROXY_BPFFS") or PINS))]
    except PermissionError:
        return []


def _configured(environment: Environment) -> Snapshot | None:
    """What is configured, migrated where needed; None where that cannot be tried."""
    from marchproxy.store.errors import SchemaTooOld

    try:
        return intent.read(environment)
    except SchemaTooOld:
        from marchproxy.store.rehearsal import rehearse

        return rehearse(environment.state_dir)


def find_mistakes(environment: Environment, snapshot: Snapshot) -> Sequence["Finding"]:
    """What there is to say about what is configured, as of now."""
    from marchproxy.policy.check import check as find
    from marchproxy.policy.compile import compile_plan

    names = _names(environment)
    now, management = datetime.now(UTC), environment.management_ports
    compiled = compile_plan(snapshot, names=names or {}, management=management, now=now)
    return find(snapshot, compiled, names)


def _names(environment: Environment) -> dict[str, list[IPAddress]] | None:
    """What the running daemon knows of host names; None where none answers."""
    try:
        known = Control(environment).get("/v1/status")["names"]
    except MarchproxyError as error:
        environment.detail(f"host names are not looked at: {error.message}")
        return None
    return {name: [ip_address(text) for text in found] for name, found in known.items()}


def _lines(environment: Environment, row: Document) -> Iterator[str]:
    """Sentences and not columns: cut at the edge of a terminal a finding would lose its point."""
    severity = row["severity"]
    colour = "red" if severity == "error" else "yellow"
    yield f"{environment.colour(f'{severity:<7}', colour)}  {row['name']}: {row['message']}"
    if row["hint"]:
        yield f"         {row['hint']}"
