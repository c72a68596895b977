"""`marchproxy connect`: a tunnel on stdin and stdout, for people and for the ProxyCommand of ssh."""

from typing import TYPE_CHECKING, Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.tokenfile import TOKEN_VARIABLE, read_token

if TYPE_CHECKING:
    from marchproxy.cli.tunnelling import Security, Target

app = single()


@verb(
    app,
    "connect",
    "marchproxy connect db.example.com 5432 --proxy 10.1.0.1:3128",
    "marchproxy connect 10.1.0.1 7000 --token-file ~/.config/db.token",
    "marchproxy connect proxy.example.com 7000 --tls --ca ca.pem --token-file ~/.config/db.token",
    "marchproxy connect git.example.com 22 --proxy 10.1.0.1:3128",
)
def connect(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name or address to connect to")],
    port: Annotated[str, typer.Argument(metavar="PORT", help="Its port")],
    proxy: Annotated[
        str | None,
        typer.Option(
            "--proxy", metavar="HOST:PORT", help="The explicit proxy to go through; https://HOST:PORT by TLS"
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="FILE", help="File with the token; MARCHPROXY_TOKEN otherwise"),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Speak TLS to the listener, or to the proxy, and verify who it is")
    ] = False,
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="FILE", help="CAs to trust, as PEM; the system's otherwise")
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option("--server-name", metavar="NAME", help="Whom to expect there; what is called otherwise"),
    ] = None,
) -> ExitCode:
    """Connect stdin and stdout to a host, through a proxy or a listener that wants a token

    With --proxy the explicit proxy there is asked for HOST and PORT, with the token if there is one. Without,
    HOST and PORT are a listener of the appliance itself, which is told the token first. With --tls all of it
    is under TLS as far as the appliance, whose certificate is verified. Tokens never appear among arguments,
    where every user of the machine could read them. Exit code 7: it was refused, for the reason on stderr. As
    ProxyCommand of ssh, HOST and PORT are %h and %p.
    """
    from marchproxy.cli import tunnelling
    from marchproxy.model.ports import parse_port

    environment = environment_of(context)
    target = host, parse_port(port)
    token = read_token(environment, token_file)
    through, secure = (None, tls) if proxy is None else _proxy(proxy, tls=tls)
    if not secure and (ca is not None or server_name is not None):
        raise WrongUsage("--ca and --server-name are for TLS", hint="add --tls")
    if through is None and not token and not secure:
        message = f"{host} is told a token first, and there is none"
        hint = f"give --token-file, or {TOKEN_VARIABLE}; --proxy goes through an explicit proxy"
        raise WrongUsage(message, hint=hint)
    security = _security(environment, ca, server_name) if secure else None
    if through is None:
        opened = tunnelling.by_preface(target, token, security)
    else:
        opened = tunnelling.by_proxy(through, target, token, security)
    with opened.socket:
        tunnelling.relay(opened, 0, 1)
    return ExitCode.DONE


def _security(environment: Environment, ca: str | None, server_name: str | None) -> "Security":
    from marchproxy.cli.securing import client_context
    from marchproxy.cli.tunnelling import Security

    return Security(client_context(environment, ca), server_name)


def _proxy(text: str, *, tls: bool) -> "tuple[Target, bool]":
    """Where the proxy is, and whether it is spoken to under TLS."""
    from marchproxy.model.address import parse_host_name, parse_ip
    from marchproxy.model.errors import InvalidValue
    from marchproxy.model.ports import parse_port

    scheme, found, place = text.strip().rpartition("://")
    host, _, port = place.removesuffix("/").rpartition(":")
    if host == "*":
        raise WrongUsage("--proxy is one address, and not *")
    try:
        if found and scheme.lower() not in ("http", "https"):
            raise InvalidValue("proxy", scheme, "http or https")
        if host.startswith("[") and host.endswith("]"):
            host = str(parse_ip(host[1:-1], field="proxy"))
        elif host.replace(".", "").isdigit():
            host = str(parse_ip(host, field="proxy"))
        else:
            host = parse_host_name(host, field="proxy").name
        return (host, parse_port(port, field="proxy")), tls or scheme.lower() == "https"
    except InvalidValue:
        raise InvalidValue("proxy", text, "HOST:PORT, [IPV6]:PORT, or one of them behind https://") from None
