"""`marchproxy explain`: which mapping decides about a connection."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.client.control import Control
from marchproxy.model.errors import DaemonNotRunning, InvalidValue

app = single()


@verb(
    app,
    "explain",
    "marchproxy explain --from 10.1.3.4 --to 10.1.0.1 --protocol tcp --port 80",
    "marchproxy explain --from 10.1.3.4 --to web --port 80 --output json | jq -r .verdict",
    "marchproxy explain --from 10.1.3.4 --to 198.51.100.7 --protocol icmp",
)
def explain(
    context: typer.Context,
    source: Annotated[str, typer.Option("--from", metavar="ADDR", help="Address of the client")],
    destination: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="ADDR|NAME",
            help="Address that the client asks for, a service, or a host name",
            autocompletion=suggest.services,
        ),
    ],
    port: Annotated[
        str | None, typer.Option("--port", metavar="N", help="Port that the client asks for; icmp has none")
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="P", help="tcp, udp, what runs over them, or icmp")
    ] = "tcp",
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Explain which mapping decides about a connection

    The running daemon is asked; where there is none, the policy in the store answers. Exit code 0: the answer
    is allow, audit lets it through, or the host itself answers. 10: deny. A service is looked for where a
    mapping listens for it, and otherwise at its own address.
    """
    environment = environment_of(context)
    question: dict[str, Any] = {"source": source, "protocol": protocol}
    if port is not None:
        question["port"] = port
    elif protocol.strip().lower() != "icmp":
        raise typer.BadParameter("needed with every protocol but icmp", param_hint="--port")
    question |= _target(environment, question, destination, cluster)
    try:
        answer = Control(environment).post("/v1/explain", question)
        environment.detail("the running daemon answered")
    except DaemonNotRunning:
        environment.note("no daemon runs: this is the answer of the policy in the store")
        answer = _from_policy(environment, question)
    if output is Output.TABLE:
        show_lines(environment, _lines(environment, answer))
    else:
        environment.stdout.write(serialise(answer, output))
    return ExitCode.DENIED if answer["verdict"] == "deny" else ExitCode.DONE


def _target(
    environment: Environment, question: dict[str, Any], destination: str, cluster: str
) -> dict[str, Any]:
    """Address and port that stand for what `--to` names."""
    from marchproxy.model.address import parse_ip

    try:
        return {"destination": str(parse_ip(destination, field="to"))}
    except InvalidValue:
        from marchproxy.cli.reaching import reach

        address, port = reach(environment, question, destination, cluster)
        if not port:
            environment.note(f"{destination} is asked for at {address}")
            return {"destination": address}
        environment.note(f"{destination} is asked for at {address}, port {port}")
        return {"destination": address, "port": port}


def _from_policy(environment: Environment, question: dict[str, Any]) -> dict[str, Any]:
    """What the daemon would answer, had it the store's policy and no resolved host names."""
    from datetime import UTC, datetime

    from marchproxy.dataplane.control.api import read_question
    from marchproxy.dataplane.control.documents import answer_document
    from marchproxy.policy.compile import compile_plan
    from marchproxy.policy.evaluate import Evaluator
    from marchproxy.policy.why import why

    query = read_question(question)
    with intent.opened(environment, read_only=True) as store:
        snapshot, revision = store.snapshot(), store.head().number
        contents = store.contents_of(snapshot)
    management = environment.management_ports
    compiled = compile_plan(snapshot, management=management, contents=contents, now=datetime.now(UTC))
    evaluator = Evaluator(compiled.plan)
    document = answer_document(evaluator.evaluate(query), why(evaluator, query))
    return {**document, "tier": "policy", "revision": revision}


def _lines(environment: Environment, answer: dict[str, Any]) -> Iterator[str]:
    colour = {"deny": "red", "audit": "yellow"}.get(answer["verdict"], "green")
    decided = f" by mapping {answer['mapping']}" if answer["mapping"] else ""
    yield f"{environment.colour(answer['verdict'], colour)}, {answer['reason']}{decided}"
    yield from (f"  {sentence}" for sentence in answer["why"])
    yield f"  (revision {answer['revision']}, tier {answer['tier']})"
