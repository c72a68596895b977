"""`marchproxy init`: create the store; with `--wizard`, a gateway in audit mode."""

from typing import Annotated

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.cli.output import Output, show_one
from marchproxy.model.names import DEFAULT_CLUSTER

app = single()

_Devices = list[str] | None


@verb(
    app,
    "init",
    "marchproxy init",
    "MARCHPROXY_STATE_DIR=./state marchproxy init",
    "marchproxy init --wizard",
    "marchproxy init --wizard --inside eth1 --outside eth0 --masquerade --yes",
    "marchproxy init --wizard --answers box1.yaml --yes",
)
def init(
    context: typer.Context,
    wizard: Annotated[
        bool,
        typer.Option("--wizard", help="Ask for interfaces and a block list; end with a gateway in audit"),
    ] = False,
    answers: Annotated[
        str | None, typer.Option("--answers", metavar="FILE", help="Answers to the wizard, YAML or JSON")
    ] = None,
    inside: Annotated[
        _Devices,
        typer.Option(
            "--inside",
            metavar="DEVICE",
            help="A device towards clients; may be repeated",
            autocompletion=suggest.devices,
        ),
    ] = None,
    outside: Annotated[
        _Devices,
        typer.Option(
            "--outside",
            metavar="DEVICE",
            help="A device towards servers or the internet; may be repeated; none",
            autocompletion=suggest.devices,
        ),
    ] = None,
    masquerade: Annotated[
        bool | None,
        typer.Option(
            "--masquerade/--no-masquerade", help="Whether what leaves outside carries the appliance's address"
        ),
    ] = None,
    block_list: Annotated[
        str | None,
        typer.Option(
            "--block-list", metavar="FILE", help="The first block list; builtin, or none, for a file"
        ),
    ] = None,
    management_port: Annotated[
        _Devices,
        typer.Option(
            "--management-port", metavar="PORT", help="A TCP port that stays reachable; may be repeated"
        ),
    ] = None,
    start: Annotated[
        bool | None,
        typer.Option("--start/--no-start", help="Whether the service is started where there is one"),
    ] = None,
    yes: YesOption = False,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Create the store and print the API key of the default cluster

    Where the store exists already, nothing is changed and no key is printed: only the key's hash is stored.
    The store is in MARCHPROXY_STATE_DIR, otherwise in /var/lib/marchproxy.

    With --wizard it asks for what a gateway needs, shows what it will write, and writes that once it is
    agreed to: interfaces, a block list, and audit for everything else. Flags answer beforehand, then the
    file of --answers (inside, outside, masquerade, block_list, management_ports, start), then whoever sits at
    the terminal, or stdin with a line for each question. With --yes nobody is asked.
    """
    environment = environment_of(context)
    if wizard:
        from marchproxy.cli.answers import Answers, read_answers, read_names, read_ports
        from marchproxy.cli.wizard import Wizard

        flags = Answers(
            inside=read_names("inside", " ".join(inside)) if inside else None,
            outside=read_names("outside", " ".join(outside)) if outside else None,
            masquerade=masquerade,
            block_list=block_list,
            management_ports=read_ports("management_port", " ".join(management_port))
            if management_port
            else None,
            start=start,
        )
        given = flags.over(read_answers(environment, answers)) if answers else flags
        done = Wizard(environment, given, yes=yes).run()
        _show(environment, output, created=done.created, key=done.key)
        return done.code
    if any(
        each is not None
        for each in (answers, inside, outside, masquerade, block_list, management_port, start)
    ):
        raise WrongUsage("these flags answer the wizard's questions", hint="add --wizard")
    with intent.opened(environment, create=True) as store:
        created = store.created
        key = store.create_cluster_key(DEFAULT_CLUSTER) if created else None
    _show(environment, output, created=created, key=key)
    if not key:
        environment.note("the store exists already: nothing was changed")
    return ExitCode.DONE


def _show(environment: Environment, output: Output, *, created: bool, key: str | None) -> None:
    if output is not Output.TABLE:
        show_one(environment, output, {"name": DEFAULT_CLUSTER, "created": created, "api_key": key})
    elif key:
        environment.stdout.write(key + "\n")
    if key:
        environment.note(f"the API key of cluster {DEFAULT_CLUSTER} is shown this once: keep it")
