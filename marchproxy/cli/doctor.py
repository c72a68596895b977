"""`marchproxy doctor`: what keeps the appliance from working, and the command that puts it right."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.check import find_mistakes
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.cli.places import places
from marchproxy.client.control import Control
from marchproxy.client.words import printable
from marchproxy.model.documents import Document
from marchproxy.model.errors import MarchproxyError

if TYPE_CHECKING:
    from marchproxy.dataplane.doctor.case import Case
    from marchproxy.dataplane.doctor.finding import Finding
    from marchproxy.model.certificate import Certificate

app = single()

_COLOURS = {"error": "red", "warning": "yellow", "ok": "green"}
_ASKED_FOR = "path"
"""The check whose answer is shown also where nothing is wrong."""
_ROWS = 1000
"""Of each kind, in an archive."""
_ASKED: Mapping[str, tuple[str, Mapping[str, bool]]] = {
    "flows.json": ("/v1/flows", {}),
    "denied.json": ("/v1/flows", {"denied": True}),
    "logs.json": ("/v1/logs", {}),
}
"""What the daemon is asked for an archive, by the name of its file."""


@verb(
    app,
    "doctor",
    "marchproxy doctor",
    "marchproxy doctor -v",
    "sudo marchproxy doctor --path shop",
    "sudo marchproxy doctor --bundle support.tar.gz",
    "marchproxy doctor --output json | jq '.[] | select(.severity == \"error\")'",
)
def doctor(
    context: typer.Context,
    bundle: Annotated[
        str,
        typer.Option(
            "--bundle", metavar="FILE", help="Write an archive for those who help; no secrets in it"
        ),
    ] = "",
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            metavar="ADDR|SERVICE",
            help="Look at the way there, too: a route, and how large packets may be",
            autocompletion=suggest.services,
        ),
    ] = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Look for what keeps the appliance from working

    Each finding says what was seen and which command puts it right; nothing is changed. An error makes this
    command fail with exit code 1, a warning does not. What is fine is shown with -v. Root sees more than
    others. --path sends echo requests of several sizes to a client, a backend or the addresses of a service:
    where large ones vanish and nobody says why, connections open and then stand still (an MTU black hole).
    """
    from marchproxy.dataplane.doctor.examination import examine
    from marchproxy.dataplane.doctor.finding import Severity

    environment = environment_of(context)
    case = _case(environment)
    if path is not None:
        case = replace(case, paths=places(case, path, cluster))
    findings = list(examine(case))
    rows = [_row(finding) for finding in findings]
    if output is not Output.TABLE:
        environment.stdout.write(serialise(rows, output))
    else:
        show_lines(environment, _lines(environment, findings))
    if bundle:
        _write(environment, Path(bundle), case, rows)
    wrong = any(finding.severity is Severity.ERROR for finding in findings)
    return ExitCode.FAILED if wrong else ExitCode.DONE


def _case(environment: Environment) -> "Case":
    """Everything that can be had without changing anything."""
    from marchproxy.bpf.places import PINS
    from marchproxy.dataplane.doctor.case import Case
    from marchproxy.store.location import locate

    snapshot, status = None, None
    store_problem: MarchproxyError | None = None
    daemon_problem: MarchproxyError | None = None
    store_file, mistakes = None, 0
    certificates: Sequence[Certificate] = ()
    try:
        store_file = locate(environment.state_dir, environment.variables).path
        with intent.opened(environment, read_only=True) as store:
            snapshot, certificates = store.snapshot(), store.certificates.every()
        mistakes = sum(finding.severity == "error" for finding in find_mistakes(environment, snapshot))
    except MarchproxyError as error:
        store_problem = error
    try:
        status = Control(environment).get("/v1/status")
    except MarchproxyError as error:
        daemon_problem = error
    return Case(
        snapshot=snapshot,
        store_problem=store_problem,
        certificates=certificates,
        policy_errors=mistakes,
        status=status,
        daemon_problem=daemon_problem,
        store_file=store_file,
        runtime=environment.control_socket.parent,
        bpffs=Path(environment.variables.get("MARCHPROXY_BPFFS") or PINS),
    )


def _row(finding: "Finding") -> Document:
    return {
        "name": finding.check,
        "severity": str(finding.severity),
        "message": finding.message,
        "evidence": finding.evidence,
        "fix": finding.fix,
    }


def _lines(environment: Environment, findings: Sequence["Finding"]) -> Iterator[str]:
    """The worst first; what is fine only with -v, or as a number."""
    by_severity = {name: [each for each in findings if each.severity == name] for name in _COLOURS}
    for name, some in by_severity.items():
        for finding in some:
            if name == "ok" and not (environment.verbosity or finding.check == _ASKED_FOR):
                continue
            label = environment.colour(f"{name:<7}", _COLOURS[name])
            yield f"{label}  {finding.check}: {printable(finding.message)}"
            if finding.evidence:
                yield f"         seen: {printable(finding.evidence)}"
            if finding.fix:
                yield f"         {printable(finding.fix)}"
    fine, others = len(by_severity["ok"]), len(findings) - len(by_severity["ok"])
    if not others:
        yield f"nothing is wrong: {fine} checks are fine"
    elif not environment.verbosity:
        yield f"{fine} checks are fine; -v shows them"


def _write(environment: Environment, path: Path, case: "Case", rows: Sequence[Document]) -> None:
    from marchproxy.dataplane.doctor.bundle import write_bundle
    from marchproxy.version import VERSION

    variables = {
        name: value for name, value in environment.variables.items() if name.startswith("MARCHPROXY_")
    }
    documents: dict[str, object] = {
        "doctor.json": rows,
        "version.json": {"version": VERSION},
        "environment.json": variables | {name: "[set]" for name in variables if "TOKEN" in name},
        "export.json": case.snapshot.document() if case.snapshot else None,
        "status.json": case.status,
    }
    if case.status:
        for name, (target, query) in _ASKED.items():
            try:
                documents[name] = Control(environment).get(target, limit=_ROWS, **query)
            except MarchproxyError as error:
                documents[name] = error.message
    texts = {name: json.dumps(value, indent=1, default=str) for name, value in documents.items()}
    held = write_bundle(path, texts, case)
    environment.note(f"{path}: {len(held)} files; look through it before you send it to anybody")
