"""`marchproxy check`: mistakes in what is configured."""

from datetime import UTC, datetime

import typer

from marchproxy.cli import intent
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, show_rows

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
    1. A warning does not: something is useless, or is not carried by this version. Host names are not
    resolved.
    """
    from marchproxy.policy.check import check as find
    from marchproxy.policy.compile import compile_plan
    from marchproxy.policy.plan import Severity

    environment = environment_of(context)
    snapshot = intent.read(environment)
    findings = find(snapshot, compile_plan(snapshot, now=datetime.now(UTC)))
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
    if not rows and output is Output.TABLE:
        environment.note("nothing is wrong")
    else:
        columns = {"SEVERITY": "severity", "SUBJECT": "name", "MESSAGE": "message", "HINT": "hint"}
        show_rows(environment, output, rows, columns)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    return ExitCode.FAILED if errors else ExitCode.DONE
