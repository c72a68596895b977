"""`marchproxy explain`: which mapping decides about a connection."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, report, warn
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.goal import Goal, read_goal
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.cli.tokenfile import read_token
from marchproxy.client.control import Control
from marchproxy.client.words import meaning
from marchproxy.model.errors import DaemonNotRunning, InvalidValue, MarchproxyError

app = single()


@verb(
    app,
    "explain",
    "marchproxy explain --from 10.1.3.4 --to 10.1.0.1 --protocol tcp --port 80",
    "marchproxy explain --from 10.1.3.4 --to web --port 80 --output json | jq -r .verdict",
    "marchproxy explain --from 10.1.3.4 --to https://db.example.com/status",
    "marchproxy explain --from 10.1.3.4 --url 'https://shop.example.com/api/x?y=1' --method POST"
    " --header 'X-Env: beta'",
    "marchproxy explain --from 10.1.3.4 --to 10.1.0.1 --port 80 --host shop.example.com --path /cart",
    "marchproxy explain --from 10.1.3.4 --to 198.51.100.7 --protocol icmp",
    "marchproxy explain --from 10.1.3.4 --to 10.1.0.1 --port 443 --token-file ./token",
)
def explain(
    context: typer.Context,
    source: Annotated[str, typer.Option("--from", metavar="ADDR", help="Address of the client")],
    destination: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ADDR|NAME|URL",
            help="Address that the client asks for, a service, a host name, or a URL (http, https, ws, wss)",
            autocompletion=suggest.services,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="What a client asks of the appliance; its port unless --to says where",
        ),
    ] = None,
    port: Annotated[
        str | None, typer.Option("--port", metavar="N", help="Port that the client asks for; icmp has none")
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="P", help="tcp, udp, what runs over them, or icmp")
    ] = "tcp",
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Host of an HTTP request; without it, that of --to"),
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Its path; without it, that of --to, or /")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="M", help="Its method; without it, GET")
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="HEADER", help="A header that it has: 'NAME: VALUE'; repeatable"),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="FILE", help="The client presents the token in this file"),
    ] = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Explain which mapping decides about a connection

    The running daemon is asked, and it asks the programs in the kernel, too, by a packet that never leaves:
    no flow is opened and nothing counted. Where no daemon runs, the policy in the store answers. Exit code 0:
    the answer is allow, audit lets it through, or the host itself answers. 10: deny. 1: the kernel and the
    policy differ, which is a defect. A service is looked for where a mapping listens for it, and otherwise at
    its own address. Where HTTP is read, the request decides too. --url asks the appliance itself, at the
    address where a mapping listens for it.
    """
    environment = environment_of(context)
    if not (destination or url):
        raise typer.BadParameter("needed, or --url", param_hint="--to")
    goal = read_goal(url or destination or "", port, field="url" if url else "to")
    question: dict[str, Any] = {"source": source, "protocol": protocol}
    if goal.port is not None:
        question["port"] = goal.port
    elif protocol.strip().lower() != "icmp":
        raise typer.BadParameter("needed with every protocol but icmp", param_hint="--port")
    asked = {
        "host": host or (goal.host if url or "://" in (destination or "") else ""),
        "path": path or goal.path,
        "query": goal.query,
        "method": method,
        "headers": headers,
    }
    question |= {key: value for key, value in asked.items() if value}
    if url and not destination:
        found = _read_at(environment, question, goal, cluster)
    else:
        found = _target(environment, question, destination if url and destination else goal.host, cluster)
    question |= found.meant
    token = {"token": read_token(environment, token_file)} if token_file else {}
    try:
        answer = Control(environment).post("/v1/explain", question | token)
        environment.detail("the running daemon answered")
    except DaemonNotRunning:
        environment.note("no daemon runs: this is the answer of the policy in the store")
        if token:
            warn(environment, "only a running daemon knows tokens: the answer is that without one")
        answer = _from_policy(environment, question)
    if found.resolved:
        answer = answer | {"why": [found.resolved, *answer["why"]]}
    if output is Output.TABLE:
        show_lines(environment, _lines(environment, answer))
    else:
        environment.stdout.write(serialise(answer, output))
    return _code(environment, answer)


def _code(environment: Environment, answer: dict[str, Any]) -> ExitCode:
    kernel = answer.get("kernel") or {}
    if answer.get("agrees") is False:
        report(Disagreement(answer, kernel), environment)
        return ExitCode.FAILED
    return ExitCode.DENIED if "deny" in (answer["verdict"], kernel.get("verdict")) else ExitCode.DONE


class Disagreement(MarchproxyError):
    """The programs in the kernel do something else than policy says."""

    def __init__(self, answer: dict[str, Any], kernel: dict[str, Any]) -> None:
        said, does = (f"{each['verdict']}, {each['reason']} {each['mapping']}" for each in (answer, kernel))
        super().__init__(
            f"the kernel and the policy differ: the policy says {said.strip()}, the kernel {does.strip()}",
            hint="this is a defect: please report it, with marchproxy doctor --bundle FILE",
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """Where the question goes."""

    meant: dict[str, Any]
    """Its destination, and its port if that follows from what is named."""
    resolved: str = ""
    """In words, as the first of the chain; empty: an address was given."""


def _target(environment: Environment, question: dict[str, Any], destination: str, cluster: str) -> _Found:
    """Address and port that stand for what `--to` names."""
    from marchproxy.model.address import parse_ip

    try:
        return _Found({"destination": str(parse_ip(destination, field="to"))})
    except InvalidValue:
        from marchproxy.cli.reaching import reach

        address, port = reach(environment, question, destination, cluster)
        if not port:
            return _Found({"destination": address}, f"destination {destination} resolved to {address}")
        said = f"destination {destination} resolved to {address}, port {port}"
        return _Found({"destination": address, "port": port}, said)


def _read_at(environment: Environment, question: dict[str, Any], goal: Goal, cluster: str) -> _Found:
    """The address that stands for where clients ask for a URL."""
    from marchproxy.cli.reaching import reach_url
    from marchproxy.model.ports import parse_port

    address = reach_url(environment, question, goal.host, parse_port(goal.port or ""), cluster)
    said = f"destination {goal.host} resolved to {address}" if goal.host != address else ""
    return _Found({"destination": address}, said)


def _from_policy(environment: Environment, question: dict[str, Any]) -> dict[str, Any]:
    """What the daemon would answer, had it the store's policy and no resolved host names."""
    from datetime import UTC, datetime

    from marchproxy.dataplane.control.documents import answer_document
    from marchproxy.dataplane.control.question import read_question
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
    note = "no daemon runs"
    return {
        **document,
        "kernel": None,
        "kernel_note": note,
        "agrees": None,
        "tier": "policy",
        "revision": revision,
    }


def _lines(environment: Environment, answer: dict[str, Any]) -> Iterator[str]:
    colour = {"deny": "red", "audit": "yellow"}.get(answer["verdict"], "green")
    decided = f" by mapping {answer['mapping']}" if answer["mapping"] else ""
    yield f"{environment.colour(answer['verdict'], colour)}, {answer['reason']}{decided}"
    yield from (f"  {sentence}" for sentence in answer["why"])
    yield from _kernel_lines(environment, answer)
    yield f"  (revision {answer['revision']}, tier {answer['tier']})"


def _kernel_lines(environment: Environment, answer: dict[str, Any]) -> Iterator[str]:
    """What the programs say; nothing of a daemon of before, which does not ask them."""
    kernel = answer.get("kernel")
    if not kernel:
        if answer.get("kernel_note") and answer["tier"] != "policy":
            yield f"  not asked of the kernel: {answer['kernel_note']}"
        return
    to = f", to {kernel['backend']}" if kernel["backend"] else ""
    seen = f", which sees {kernel['seen_as']}" if kernel["seen_as"] else ""
    decided = f" by mapping {kernel['mapping']}" if kernel["mapping"] else ""
    said = f"{kernel['verdict']}, {kernel['reason']}"
    line = f"the kernel, asked at {kernel['interface']}: {said}{decided}{to}{seen}"
    if answer["agrees"] and kernel["verdict"] == "deny" != answer["verdict"]:
        line = environment.colour(f"{line}: {meaning(kernel['reason'])}", "red")
    yield f"  {line}"
