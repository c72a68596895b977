"""`marchproxy connect`: a tunnel on stdin and stdout, for people and for the ProxyCommand of ssh."""

from typing import Annotated

import typer

from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.tokenfile import TOKEN_VARIABLE, read_token

app = single()


@verb(
    app,
    "connect",
    "marchproxy connect db.example.com 5432 --proxy 10.1.0.1:3128",
    "marchproxy connect 10.1.0.1 7000 --token-file ~/.config/db.token",
    "marchproxy connect git.example.com 22 --proxy 10.1.0.1:3128",
)
def connect(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name or address to connect to")],
    port: Annotated[str, typer.Argument(metavar="PORT", help="Its port")],
    proxy: Annotated[
        str | None,
        typer.Option("--proxy", metavar="ADDR:PORT", help="The explicit proxy to go through"),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="FILE", help="File with the token; MARCHPROXY_TOKEN otherwise"),
    ] = None,
) -> ExitCode:
    """Connect stdin and stdout to a host, through a proxy or a listener that wants a token

    With --proxy the explicit proxy there is asked for HOST and PORT, with the token if there is one. Without,
    HOST and PORT are a listener of the appliance itself, which is told the token first. Tokens never appear
    among arguments, where every user of the machine could read them. Exit code 7: it was refused, for the
    reason on stderr. As ProxyCommand of ssh, HOST and PORT are %h and %p.
    """
    from marchproxy.cli import tunnelling
    from marchproxy.model.endpoint import parse_endpoint
    from marchproxy.model.ports import parse_port

    environment = environment_of(context)
    target = host, parse_port(port)
    token = read_token(environment, token_file)
    if proxy is None and not token:
        message = f"{host} is told a token first, and there is none"
        hint = f"give --token-file, or {TOKEN_VARIABLE}; --proxy goes through an explicit proxy"
        raise WrongUsage(message, hint=hint)
    if proxy is None:
        opened = tunnelling.by_preface(target, token)
    else:
        bind = parse_endpoint(proxy, field="proxy")
        if bind.address is None:
            raise WrongUsage("--proxy is one address, and not *")
        opened = tunnelling.by_proxy((str(bind.address), bind.port), target, token)
    with opened.socket:
        tunnelling.relay(opened, 0, 1)
    return ExitCode.DONE
