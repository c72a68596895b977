"""`marchproxy service`: named sets of addresses."""

from typing import Annotated

import typer

from marchproxy.cli import jwtkeys, pemfiles, suggest
from marchproxy.cli.editing import Editor
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Clear, Field, Switch, number, seconds
from marchproxy.cli.framework import noun, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption, YesOption
from marchproxy.model.change import Kind

app = noun("Manage services: named sets of addresses")

FIELDS = (
    Field(
        "addresses",
        "--address",
        "ADDR",
        "IPv4, IPv6, prefix, host name or *.NAME; may be repeated",
        many=True,
    ),
    Field("port", "--port", "N", "Port that its backends listen on; without one, the port asked for", number),
    Field("protocol", "--protocol", "P", "tcp, udp, icmp, http, https, grpc or quic"),
    Field("auth", "--auth", "METHOD", "How its clients prove who they are: none, token or jwt"),
    Field(
        *("jwt_algorithm", "--jwt-algorithm", "ALG"),
        "With --auth jwt: HS256 (unless given), HS384, HS512, RS256, ES256 or EdDSA, and no other",
    ),
    Field("jwt_audience", "--jwt-audience", "AUD", "What aud must name; the service's name unless given"),
    Field("jwt_issuer", "--jwt-issuer", "ISS", "What iss must be; anything unless given"),
    Field(jwtkeys.KEYS, "--jwt-key", "FILE", "Public key of an issuer (PEM or JWK), or with HS* the secret"),
    Field(jwtkeys.URL, "--jwks", "FILE|URL", "Public keys of an issuer, as a JWK Set"),
    Field("collection", "--collection", "NAME", "Group that mappings can name as collection:NAME"),
    Field("tags", "--tag", "TAG", "Label of your own; may be repeated", many=True),
    Field(
        "health",
        "--health",
        "CHECK",
        "none, tcp, icmp, http:/PATH, https:/PATH, grpc or grpcs, these also with :SERVICE",
    ),
    Field("health_interval", "--health-interval", "TIME", "Time between checks, 1s to 1h", seconds),
    Field("health_timeout", "--health-timeout", "TIME", "Time until a check has failed, 1s to 1m", seconds),
    Field("health_rise", "--health-rise", "N", "Good checks in a row that make it healthy, 1 to 100", number),
    Field(
        "health_fall", "--health-fall", "N", "Failed checks in a row that make it unhealthy, 1 to 100", number
    ),
    Field(
        "drain",
        "--drain",
        "ADDR",
        "Of its own: keeps its flows, gets no new ones; may be repeated",
        many=True,
    ),
    Clear("drain", "--no-drain", "Give new flows to all of its addresses again"),
    Field("weight", "--weight", "N", "Share of new flows beside other backends, 1 to 256", number),
    Switch("tls", "tls", "Whether its backends speak TLS"),
    Field("tls_ca", "--tls-ca", "FILE", "With --tls, CA of its backends in PEM form; the system's"),
    Field(
        "tls_cert",
        "--tls-cert",
        "CERT",
        "With --tls, certificate that its backends are shown, if they ask for one",
        suggest=suggest.certificates,
    ),
    Field("description", "--description", "TEXT", "What it is for, in at most 500 characters"),
)
EDITOR = Editor(
    Kind.SERVICE,
    {
        "NAME": "name",
        "ADDRESSES": "addresses",
        "PORT": "port",
        "PROTOCOL": "protocol",
        "AUTH": "auth",
        "COLLECTION": "collection",
        "HEALTH": "health",
        "DESCRIPTION": "description",
    },
)
NewName = Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 letters, digits, '.', '_' or '-'")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name", autocompletion=suggest.services)]


@verb(
    app,
    "add",
    "marchproxy service add clients --address 10.1.0.0/16",
    "marchproxy service add web --address 10.2.0.10 --address 10.2.0.11 --port 80 --health tcp",
    fields=FIELDS,
    required="addresses",
)
def add(
    context: typer.Context, name: NewName, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE
) -> ExitCode:
    """Add a service

    As the source of a mapping its addresses say who a client is. As the destination they are the backends
    that new flows are spread over. A host name follows DNS.
    """
    pemfiles.read(context, ["tls_ca"])
    return EDITOR.add(context, name, cluster, output, jwtkeys.read(context, cluster, name))


@verb(app, "list", "marchproxy service list", "marchproxy service list --output json | jq -r '.[].name'")
def list_all(context: typer.Context, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE) -> None:
    """List the services of a cluster

    The table shows the first addresses of each; JSON and YAML show every field.
    """
    EDITOR.list(context, cluster, output)


@verb(app, "show", "marchproxy service show web")
def show(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE
) -> None:
    """Show one service with all its fields

    The running daemon is asked for the state of those of its backends that are checked or drained.
    """
    from marchproxy.cli.health import with_backends

    EDITOR.show(context, name, cluster, output, with_backends)


@verb(
    app,
    "set",
    "marchproxy service set web --address 10.2.0.10,10.2.0.11,10.2.0.12",
    "marchproxy service set web --port 8080 --collection ''",
    "marchproxy service set web --drain 10.2.0.10",
    "marchproxy service set api --auth jwt --jwt-key issuer.pem --jwt-algorithm ES256",
    fields=FIELDS,
)
def change(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE
) -> ExitCode:
    """Change a service

    Only the flags that are given change anything. --address, --tag and --drain replace their whole list, and
    --jwt-key and --jwks each other. An empty value, such as --port '', returns a field to its default, and
    so does another --auth than jwt with what is asked of JWTs.
    """
    pemfiles.read(context, ["tls_ca"])
    return EDITOR.change(context, name, cluster, output, jwtkeys.read(context, cluster, name))


@verb(app, "remove", "marchproxy service remove web --yes")
def remove(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, yes: YesOption = False
) -> ExitCode:
    """Remove a service

    It asks first on a terminal; a script says --yes. A service that a mapping names cannot be removed. Its
    tokens go with it, and no rollback brings them back.
    """
    return EDITOR.remove(context, name, cluster, yes)
