"""`marchproxy mapping`: who may talk to whom."""

from typing import Annotated

import typer

from marchproxy.cli import pemfiles, suggest
from marchproxy.cli.editing import Editor
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Field, Switch, given, grace, number, on_off, seconds, shares
from marchproxy.cli.framework import noun, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption, YesOption
from marchproxy.model.change import Kind

app = noun("Manage mappings: who may talk to whom")

_WHO = "Services by name, collection:NAME, external or all"
FIELDS = (
    Field("sources", "--from", "S[,S]", f"{_WHO}: the clients", many=True, suggest=suggest.references),
    Field(
        "destinations",
        "--to",
        "S[=N][,S…]",
        f"{_WHO}: the servers; with --listen, =N says what share of new flows each gets",
        many=True,
        suggest=suggest.references,
        parts=shares,
    ),
    Field(
        "protocols",
        "--protocol",
        "P[,P]",
        "tcp, udp, icmp, http, https, grpc or quic; https,quic with --tls is HTTP/3, too",
        many=True,
    ),
    Field("ports", "--ports", "PORTS", "Ports of the destination, such as 443,8000-8100", many=True),
    Field(
        "listen",
        "--listen",
        "ADDR:PORT",
        "Address and port to open, or ports FIRST-LAST; [v6]:PORT, or *:PORT for all addresses; without:"
        " routed traffic",
    ),
    Field("host", "--host", "HOST", "Only this host name, or *.NAME for those below it"),
    Field("path_prefix", "--path-prefix", "PATH", "Only paths that start with this"),
    Field("path", "--path", "PATH", "Only this path"),
    Field("methods", "--method", "M[,M]", "Only HTTP requests by one of these methods", many=True),
    Field(
        "headers",
        "--header",
        "HEADER",
        "Only with this header: 'NAME: VALUE', NAME for any value, '!NAME' for none",
        many=True,
        whole=True,
    ),
    Field(
        "query",
        "--query",
        "PARAMETER",
        "Only with this parameter of the query: NAME=VALUE, NAME for any value, '!NAME' for none",
        many=True,
        whole=True,
    ),
    Field("priority", "--priority", "N", "0 to 65535, lower wins; 100 unless given", number),
    Field("action", "--action", "ACTION", "allow or deny; allow unless given"),
    Switch("auth_required", "auth-required", "Whether clients must present a credential"),
    Field(
        "expires", "--expires", "TIME", "Instant from which it matches nothing, such as 2030-01-31T18:00:00Z"
    ),
    Field("audit", "--audit", "on|off", "Report what it would deny, and let it through", on_off),
    Field(
        "balance",
        "--balance",
        "HOW",
        "How backends get new flows: maglev (unless given), round-robin, least-connections or source",
    ),
    Field(
        "on_expiry",
        "--on-expiry",
        "WHAT",
        "What a tunnel does whose credential expires: keep (unless given), grace:TIME or cut",
        grace,
    ),
    Switch("sni", "sni", "Whether TLS that passes must name the destination"),
    Field(
        "sni_missing",
        "--without-sni",
        "WHAT",
        "With --sni, who shows no TLS name: deny (unless given), allow, or address to decide by that",
    ),
    Field(
        "tls",
        "--tls",
        "CERT",
        "Certificate with which TLS is spoken where it listens",
        suggest=suggest.certificates,
    ),
    Switch("sticky", "sticky", "Whether browsers stay with one backend, by a cookie; where HTTP is read"),
    Field(
        "redirect",
        "--redirect",
        "URL",
        "Send HTTP clients there instead of to a service; {host} and {path} are those of the request",
    ),
    Field("redirect_status", "--redirect-status", "N", "301, 302, 303, 307, or 308 unless given", number),
    Field("rewrite_prefix", "--rewrite-prefix", "PATH", "What backends get for --path-prefix or --path"),
    Field("rewrite_host", "--rewrite-host", "HOST", "What backends get as Host"),
    Field(
        "request_headers",
        "--request-header",
        "ACTION",
        "Change what backends get: 'set NAME VALUE', 'add NAME VALUE' or 'remove NAME'; repeatable",
        many=True,
        whole=True,
    ),
    Field(
        "response_headers",
        "--response-header",
        "ACTION",
        "The same of what clients get",
        many=True,
        whole=True,
    ),
    Field(
        "mirror",
        "--mirror",
        "SERVICE[=PERCENT]",
        "HTTP: copy requests, or so many in a hundred, to this service too; nobody reads its answers",
        suggest=suggest.services,
    ),
    Field(
        "proxy_from",
        "--proxy-from",
        "CIDR",
        "Whose connections say by the PROXY protocol who their client is, such as a load balancer; may be"
        " repeated",
        many=True,
    ),
    Field(
        "send_proxy",
        "--send-proxy",
        "HOW",
        "Tell backends who the client is, by version v1 or v2 of the PROXY protocol; none unless given",
    ),
    Field("connect_timeout", "--connect-timeout", "TIME", "HTTP: for a connection to a backend, 5s", seconds),
    Field("response_timeout", "--response-timeout", "TIME", "HTTP: until an answer begins, 60s", seconds),
    Field("idle_timeout", "--idle-timeout", "TIME", "HTTP: of silence within an answer, 60s", seconds),
    Field(
        "retry_on",
        "--retry",
        "WHAT[,…]",
        "HTTP: send GET and the like again, once or twice, on reset, timeout, 502, 503 or 504",
        many=True,
    ),
    Field(
        "retry_budget", "--retry-budget", "PERCENT", "HTTP: of requests that may be sent again, 20", number
    ),
    Field("eject_after", "--eject-after", "N", "HTTP: failures in a row of a backend, 5; 0: never", number),
    Field("eject_for", "--eject-for", "TIME", "HTTP: time without such a backend, at first, 10s", seconds),
    Field("eject_most", "--eject-most", "PERCENT", "HTTP: of backends that may be left out, 50", number),
    Field("max_requests", "--max-requests", "N", "HTTP: at one time with each backend; 0: any", number),
    Field("max_waiting", "--max-waiting", "N", "HTTP: that wait where --max-requests are under way", number),
    Field(
        "limit_requests", "--limit-requests", "RATE", "HTTP: requests that may come: 100/s, 10/m or 5000/h"
    ),
    Field("limit_burst", "--limit-burst", "N", "HTTP: of these at once; the number of the rate", number),
    Field("limit_per", "--limit-per", "WHAT", "HTTP: counted by source (unless given), token or mapping"),
    Field("client_ca", "--client-ca", "FILE", "HTTP with --tls: CA that clients' certificates are of; PEM"),
    Field("client_crl", "--client-crl", "FILE", "HTTP: which of them were revoked, as its CA says; PEM"),
    Field(
        "client_names",
        "--client-name",
        "KIND:NAME[,…]",
        "HTTP: names that one must have: cn, ou, o, dns, email, uri or ip, with * for any characters",
        many=True,
    ),
    Switch("trace", "trace", "HTTP: whether requests without traceparent get one"),
    Switch(
        "early_data",
        "early-data",
        "HTTP/3: whether GET, HEAD and OPTIONS may come before a handshake is complete (0-RTT): for backends"
        " that know Early-Data, or may be asked twice",
    ),
    Field("description", "--description", "TEXT", "What it is for, in at most 500 characters"),
)
_FILES = ("client_ca", "client_crl")
EDITOR = Editor(
    Kind.MAPPING,
    {
        "PRIORITY": "priority",
        "NAME": "name",
        "ACTION": "action",
        "FROM": "sources",
        "TO": "destinations",
        "PROTOCOL": "protocols",
        "PORTS": "ports",
        "LISTEN": "listen",
        "EXPIRES": "expires",
        "DESCRIPTION": "description",
    },
    lambda mapping: mapping.precedence,
)
NewName = Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 letters, digits, '.', '_' or '-'")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name", autocompletion=suggest.mappings)]


@verb(
    app,
    "add",
    "marchproxy mapping add clients-web --from clients --to web --protocol tcp --listen 10.1.0.1:80",
    "marchproxy mapping add games --from clients --to games --protocol udp --listen 10.1.0.1:27000-27099",
    "marchproxy mapping add out --from clients --to external --protocol tcp,udp,icmp --ports 53,443",
    "marchproxy mapping add db --from clients --to db --protocol tcp --listen 10.1.0.1:5432 --auth-required"
    " --tls proxy",
    "marchproxy mapping add shop --from all --to shop --protocol https,quic --listen '*:443' --tls shop",
    "marchproxy mapping add login --from all --to web --protocol http --listen '*:80' --host shop.example"
    " --path-prefix /login --limit-requests 10/m",
    "marchproxy mapping add not-lab --from lab --to web --protocol tcp --listen 10.1.0.1:80"
    " --action deny --priority 10",
    "marchproxy mapping add shop --from all --to shop --protocol https --listen '*:443' --tls shop"
    " --host shop.example.com --path-prefix /api --method GET,POST --rewrite-prefix /v2"
    " --response-header 'set Strict-Transport-Security max-age=31536000'",
    "marchproxy mapping add to-https --from all --protocol http --listen '*:80' --redirect 'https://{host}{path}'",
    fields=FIELDS,
    required="sources protocols",
)
def add(
    context: typer.Context, name: NewName, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE
) -> ExitCode:
    """Add a mapping

    The first mapping that matches decides: lowest priority first, at equal priority deny before allow. Where
    none matches, traffic is denied. With --listen clients connect to the appliance; without it the mapping is
    for traffic that is routed through it, to the destination's own addresses. Without --ports the
    destinations' own ports are used, or any.
    """
    pemfiles.read(context, _FILES)
    if not given(context).keys() & {"destinations", "redirect"}:
        raise typer.BadParameter("needed, or --redirect", param_hint="--to")
    return EDITOR.add(context, name, cluster, output)


@verb(app, "list", "marchproxy mapping list", "marchproxy mapping list --cluster lab --output yaml")
def list_all(context: typer.Context, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE) -> None:
    """List the mappings of a cluster in the order in which they are tried"""
    EDITOR.list(context, cluster, output)


@verb(app, "show", "marchproxy mapping show clients-web")
def show(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE
) -> None:
    """Show one mapping with all its fields"""
    EDITOR.show(context, name, cluster, output)


@verb(
    app,
    "set",
    "marchproxy mapping set clients-web --action deny",
    "marchproxy mapping set clients-web --ports 443,8000-8100 --expires ''",
    "marchproxy mapping set shop --to shop=90 --to shop-canary=10 --sticky",
    fields=FIELDS,
)
def change(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE
) -> ExitCode:
    """Change a mapping

    Only the flags that are given change anything; lists are replaced whole. An empty value, such as --expires
    '', returns a field to its default. Flows that stay allowed are not disturbed.
    """
    pemfiles.read(context, _FILES)
    return EDITOR.change(context, name, cluster, output)


@verb(app, "remove", "marchproxy mapping remove clients-web --yes")
def remove(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, yes: YesOption = False
) -> ExitCode:
    """Remove a mapping

    What only this mapping allowed is denied from then on, flows that run included. It asks first on a
    terminal; a script says --yes.
    """
    return EDITOR.remove(context, name, cluster, yes)
