"""`marchproxy learn`: from what audit lets through to mappings that allow it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, InvalidFile
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption, YesOption
from marchproxy.cli.output import Output, serialise, show_rows
from marchproxy.cli.table import Columns, Row
from marchproxy.client import edits
from marchproxy.client.control import Control
from marchproxy.model.errors import DaemonNotRunning, InvalidValue

if TYPE_CHECKING:
    from marchproxy.dataplane.learning import Learning
    from marchproxy.model.snapshot import Snapshot
    from marchproxy.policy.observed import Observation

app = noun("Learn from audit which mappings are missing")

_LIMITS = {4: 32, 6: 128}


def _destination(row: Row) -> str:
    known = row["destination_service"] or row["name"]
    return f"{row['destination']} ({known})" if known else str(row["destination"])


_COLUMNS: Columns = {
    "SOURCE": lambda row: row["source"] + (f" ({row['source_service']})" if row["source_service"] else ""),
    "DESTINATION": _destination,
    "PROTOCOL": "protocol",
    "PORT": lambda row: row["port"] or "-",
    "REASON": "reason",
    "MAPPING": lambda row: row["mapping"] or "-",
    "COUNT": "count",
    "FIRST": "first",
    "LAST": "last",
}


@verb(app, "show", "marchproxy learn show", "marchproxy learn show --output json")
def show(context: typer.Context, output: OutputOption = TABLE) -> None:
    """Show what audit let through, most first

    Audit is switched on for the appliance, a cluster or a mapping; what would be refused then passes, and is
    counted here by source, destination, protocol and port.
    """
    environment = environment_of(context)
    learned = _learned(environment)
    show_rows(environment, output, learned["observations"], _COLUMNS)
    if learned["missed"]:
        environment.note(f"{learned['missed']} more flows found the table full")


@verb(
    app,
    "propose",
    "marchproxy learn propose",
    "marchproxy learn propose -o learned.yaml --group 16",
    "marchproxy learn propose --output json",
)
def propose(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Option("--write", "-o", metavar="FILE", help="Write to this file, not to stdout")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="LENGTH",
            help="Prefix length of one network of clients: /24 and /64 unless given; over /32 means IPv6",
        ),
    ] = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Propose services and mappings that would allow what audit let through

    The result is a file for apply, in YAML unless JSON is asked for. It only adds: read it, change it, then
    apply it and switch audit off. What a mapping denies on purpose is not proposed.
    """
    environment = environment_of(context)
    from marchproxy.policy.observed import read_observations

    observations = read_observations(_learned(environment)["observations"])
    groups = _groups(group or ())
    snapshot = intent.read(environment)
    document = _proposal(environment, snapshot, observations, groups, cluster)
    text = serialise(document, Output.JSON if output is Output.JSON else Output.YAML)
    if target is None:
        environment.stdout.write(text)
    else:
        _write(target, text)
        environment.note(f"{target} has {len(document['mappings'])} mappings: look at it, then apply it")
    return ExitCode.DONE


@verb(app, "forget", "marchproxy learn forget --yes")
def forget(context: typer.Context, yes: YesOption = False) -> ExitCode:
    """Forget what audit let through, to start anew

    It asks first on a terminal; a script says --yes.
    """
    environment = environment_of(context)
    intent.confirm(environment, "forget what audit let through", yes)
    try:
        count = Control(environment).delete("/v1/learned")["forgotten"]
    except DaemonNotRunning:
        kept = _kept(environment)
        count = kept.forget()
        kept.save()
    environment.note(f"{count} observations forgotten")
    return ExitCode.DONE


def _learned(environment: Environment) -> dict[str, Any]:
    """The daemon's table, or the file that the last one left."""
    try:
        learned: dict[str, Any] = Control(environment).get("/v1/learned")
        return learned
    except DaemonNotRunning:
        from marchproxy.dataplane.learning import learned_document

        environment.detail("no daemon runs: this is what the last one has kept")
        return learned_document(_kept(environment))


def _kept(environment: Environment) -> "Learning":
    from marchproxy.dataplane.learning import Learning, learned_file

    return Learning(learned_file(environment.state_dir))


def _groups(lengths: Sequence[str]) -> dict[int, int]:
    from marchproxy.policy.propose import GROUPS

    groups = dict(GROUPS)
    for text in lengths:
        digits = text.removeprefix("/")
        if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= _LIMITS[6]):
            raise InvalidValue("group", text, "a prefix length such as /24 or /64")
        groups[4 if int(digits) <= _LIMITS[4] else 6] = int(digits)
    return groups


def _proposal(
    environment: Environment,
    snapshot: "Snapshot",
    observations: "Sequence[Observation]",
    groups: dict[int, int],
    cluster: str,
) -> dict[str, Any]:
    from marchproxy.model.documents import to_document
    from marchproxy.policy.propose import propose

    held = edits.cluster_of(snapshot, cluster)
    open_ones = _still_refused(environment, snapshot, observations)
    denied = [seen for seen in open_ones if seen.mapping]
    if denied:
        named = ", ".join(sorted({seen.mapping for seen in denied})[:5])
        environment.note(f"not proposed: {len(denied)} observations that mappings deny on purpose ({named})")
    undecided = [seen for seen in open_ones if not seen.mapping]
    if not undecided:
        environment.note("nothing to propose: what audit saw is allowed, or nothing was seen")
    proposed = propose(undecided, held, groups)
    return {
        "merge": True,
        "services": [to_document(service) for service in proposed.services],
        "mappings": [to_document(mapping) for mapping in proposed.mappings],
    }


def _still_refused(
    environment: Environment, snapshot: "Snapshot", observations: "Sequence[Observation]"
) -> "list[Observation]":
    """Those that the policy in the store would not allow, audit apart."""
    from datetime import UTC, datetime

    from marchproxy.dataplane.hostaddresses import is_local
    from marchproxy.model.protocol import Transport
    from marchproxy.model.reason import Verdict
    from marchproxy.policy.compile import compile_plan
    from marchproxy.policy.evaluate import Evaluator, Query

    plan = compile_plan(snapshot, names=_resolved(environment), now=datetime.now(UTC)).plan
    evaluator, local = Evaluator(plan), cache(is_local)

    def is_refused(seen: "Observation") -> bool:
        transport = None if seen.protocol == "icmp" else Transport(seen.protocol)
        query = Query(seen.source.network_address, seen.destination, seen.port, transport, local)
        return evaluator.evaluate(query).verdict is not Verdict.ALLOW

    return [seen for seen in observations if is_refused(seen)]


def _resolved(environment: Environment) -> dict[str, Any]:
    from marchproxy.model.address import parse_ip

    try:
        names = Control(environment).get("/v1/status")["names"]
    except DaemonNotRunning:
        return {}
    return {name: tuple(parse_ip(address) for address in found) for name, found in names.items()}


def _write(target: str, text: str) -> None:
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidFile(f"{target}: {error.strerror}") from None
