"""`marchproxy interface`: the network devices that the appliance attaches to."""

from typing import Annotated

import typer

from marchproxy.cli import suggest
from marchproxy.cli.editing import Editor
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Field, Switch
from marchproxy.cli.framework import noun, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.model.change import Kind

app = noun("Manage the network devices that the appliance attaches to")

FIELDS = (
    Field("role", "--role", "ROLE", "inside (towards clients) or outside (towards backends)"),
    Field("mode", "--mode", "MODE", "auto, xdp, xdp-generic or tc; auto unless given"),
    Switch("masquerade", "masquerade", "Whether what leaves by it carries the appliance's own address"),
    Field(
        "nat_addresses",
        "--nat-address",
        "ADDR",
        "With --masquerade: source address to use; may be repeated",
        many=True,
    ),
)
EDITOR = Editor(
    Kind.INTERFACE,
    {
        "NAME": "name",
        "ROLE": "role",
        "MODE": "mode",
        "MASQUERADE": "masquerade",
        "NAT ADDRESSES": "nat_addresses",
    },
)
NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="A device, eth0", autocompletion=suggest.devices)
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name", autocompletion=suggest.interfaces)]


@verb(
    app,
    "add",
    "marchproxy interface add eth1 --role inside",
    "marchproxy interface add eth0 --role outside --mode xdp-generic",
    "marchproxy interface add eth0 --role outside --masquerade",
    fields=FIELDS,
    required="role",
)
def add(context: typer.Context, name: NewName, output: OutputOption = TABLE) -> ExitCode:
    """Add a network device

    Mode auto attaches XDP where the driver carries it natively, and TC everywhere else. A device that does
    not exist yet is attached as soon as it appears.
    """
    return EDITOR.add(context, name, "", output)


@verb(app, "list", "marchproxy interface list")
def list_all(context: typer.Context, output: OutputOption = TABLE) -> None:
    """List the configured network devices

    How each is attached right now is part of marchproxy status.
    """
    EDITOR.list(context, "", output)


@verb(app, "show", "marchproxy interface show eth0")
def show(context: typer.Context, name: Name, output: OutputOption = TABLE) -> None:
    """Show one network device with all its fields"""
    EDITOR.show(context, name, "", output)


@verb(
    app,
    "set",
    "marchproxy interface set eth0 --masquerade",
    "marchproxy interface set eth0 --masquerade --nat-address 192.0.2.1 --nat-address 192.0.2.2",
    "marchproxy interface set eth0 --no-masquerade --nat-address ''",
    fields=FIELDS,
)
def change(context: typer.Context, name: Name, output: OutputOption = TABLE) -> ExitCode:
    """Change a network device

    Only the flags that are given change anything; the list of --nat-address is replaced whole. Without
    --nat-address masquerade uses the address that the kernel would choose itself.
    """
    return EDITOR.change(context, name, "", output)


@verb(app, "remove", "marchproxy interface remove eth0 --yes")
def remove(context: typer.Context, name: Name, yes: YesOption = False) -> ExitCode:
    """Remove a network device

    The programs are taken off it, and what it carried ends. It asks first on a terminal; a script says --yes.
    """
    return EDITOR.remove(context, name, "", yes)
