"""`marchproxy listener`: addresses and ports that the appliance itself serves."""

from typing import Annotated

import typer

from marchproxy.cli import suggest
from marchproxy.cli.editing import Editor
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Field, amend, given
from marchproxy.cli.framework import noun, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.model.appliance import ApplianceListener
from marchproxy.model.change import Kind
from marchproxy.model.documents import read_entity

app = noun("Manage addresses and ports that the appliance itself serves")

_TLS = Field(
    "tls",
    "--tls",
    "CERT",
    "Certificate with which an explicit one speaks TLS; CLUSTER/CERT outside the default cluster",
    suggest=suggest.certificates,
)
_PROXY_FROM = Field(
    "proxy_from",
    "--proxy-from",
    "CIDR",
    "Whose connections to an explicit one say by the PROXY protocol who their client is; may be repeated",
    many=True,
)
FIELDS = (
    Field("bind", "--bind", "ADDR:PORT", "Address and port to serve; [v6]:PORT, or *:PORT for all"),
    _TLS,
    _PROXY_FROM,
)
EDITOR = Editor(
    Kind.LISTENER,
    {"NAME": "name", "KIND": "kind", "BIND": "bind", "TLS": "tls", "PROXY FROM": "proxy_from"},
)
OfKind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="What it speaks: dns or explicit", autocompletion=suggest.listener_kinds
    ),
]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="KIND@ADDR:PORT, as list shows", autocompletion=suggest.listeners),
]


@verb(
    app,
    "add",
    "marchproxy listener add dns --bind 10.1.0.1:53",
    "marchproxy listener add explicit --bind 10.1.0.1:3128",
    "marchproxy listener add explicit --bind 10.1.0.1:3129 --tls proxy",
    fields=FIELDS,
    required="bind",
)
def add(context: typer.Context, kind: OfKind, output: OutputOption = TABLE) -> ExitCode:
    """Add a listener

    A dns listener answers hosts on the inside from the resolvers of the appliance, and teaches services with
    host names the very addresses that it has given out. An explicit listener is an HTTP and SOCKS5 proxy on
    one port: mappings without a listen address say who may go where by it, with a token or without. With
    --tls it is an HTTPS proxy, and SOCKS5 under TLS.
    """
    listener = read_entity(ApplianceListener, amend({"kind": kind}, given(context)))
    return EDITOR.put(context, listener, "", output)


@verb(app, "list", "marchproxy listener list --output json")
def list_all(context: typer.Context, output: OutputOption = TABLE) -> None:
    """List the listeners of the appliance"""
    EDITOR.list(context, "", output)


@verb(
    app,
    "set",
    "marchproxy listener set explicit@10.1.0.1:3128 --tls proxy",
    "marchproxy listener set explicit@10.1.0.1:3128 --tls ''",
    "marchproxy listener set explicit@10.1.0.1:3128 --proxy-from 10.1.0.5",
    fields=(_TLS, _PROXY_FROM),
)
def change(context: typer.Context, name: Name, output: OutputOption = TABLE) -> ExitCode:
    """Change with which certificate a listener speaks TLS, and who says who its client is

    An empty value, --tls '', means none: it is spoken to in the clear. Connections that stand go on as they
    are.
    """
    return EDITOR.change(context, name, "", output)


@verb(app, "remove", "marchproxy listener remove dns@10.1.0.1:53 --yes")
def remove(context: typer.Context, name: Name, yes: YesOption = False) -> ExitCode:
    """Remove a listener

    It asks first on a terminal; a script says --yes.
    """
    return EDITOR.remove(context, name, "", yes)
