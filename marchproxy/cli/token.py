"""`marchproxy token`: what clients of a service present."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, cast

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption
from marchproxy.cli.output import Output, show_one, show_rows
from marchproxy.cli.table import Columns
from marchproxy.client import edits
from marchproxy.client.control import Control
from marchproxy.client.units import parse_duration
from marchproxy.model.change import Kind
from marchproxy.model.documents import Document, write_field
from marchproxy.model.entities import Auth

if TYPE_CHECKING:
    from marchproxy.model.entities import Service
    from marchproxy.store.credentials import Credentials
    from marchproxy.store.tokens import Issued, Token

app = noun("Manage tokens: what clients of a service present")

_COLUMNS: Columns = {
    "ID": "id",
    "SERVICE": "service",
    "METHOD": "method",
    "STATE": "state",
    "CREATED": "created",
    "ENDS": lambda row: min(filter(None, (row["expires"], row["replaced"])), default=None),
    "LAST USED": "last_used",
}
_INSTANTS = ("created", "expires", "replaced", "revoked", "last_used")

ServiceName = Annotated[
    str, typer.Argument(metavar="SERVICE", autocompletion=suggest.services, help="Its name")
]
AnyService = Annotated[
    str | None,
    typer.Argument(metavar="[SERVICE]", autocompletion=suggest.services, help="Only those of this service"),
]
Ttl = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long it works, such as 12h or 90d; without end, a JWT 24h"),
]
Overlap = Annotated[str, typer.Option(metavar="TIME", help="How much longer older tokens work; 0 to 365d")]
Ids = Annotated[
    list[int] | None, typer.Option("--id", metavar="N", help="Only the one of this number; may be repeated")
]
Jtis = Annotated[
    list[str] | None, typer.Option("--jti", metavar="JTI", help="Only the JWT of this jti; may be repeated")
]


@verb(app, "issue", "marchproxy token issue web", "TOKEN=$(marchproxy token issue api --ttl 12h)")
def issue(
    context: typer.Context,
    service: ServiceName,
    ttl: Ttl = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Issue a token for a service and print it

    Only its hash is stored, so it is printed this once. For a service with --auth jwt it is a JWT, signed
    with a secret that never leaves the appliance. Those that were issued before go on working.
    """
    lifetime = _lifetime(ttl)
    return _hand_out(
        environment_of(context),
        (cluster, service),
        output,
        lambda held: held.issue(cluster, service, lifetime=lifetime),
    )


@verb(app, "rotate", "marchproxy token rotate web", "marchproxy token rotate web --overlap 1h --ttl 90d")
def rotate(
    context: typer.Context,
    service: ServiceName,
    overlap: Overlap = "24h",
    ttl: Ttl = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Replace the tokens of a service and print the new one

    Older ones work until the overlap ends, so that clients can change over; --overlap 0 ends them at once.
    """
    lifetime = _lifetime(ttl)
    rest = timedelta(seconds=parse_duration(overlap, field="overlap"))
    return _hand_out(
        environment_of(context),
        (cluster, service),
        output,
        lambda held: held.rotate(cluster, service, lifetime=lifetime, overlap=rest),
    )


@verb(
    app,
    "revoke",
    "marchproxy token revoke web",
    "marchproxy token revoke web --id 3",
    "marchproxy token revoke api --jti 0f8b1c",
)
def revoke(
    context: typer.Context,
    service: ServiceName,
    ids: Ids = None,
    jtis: Jtis = None,
    now: Annotated[
        bool, typer.Option("--now", help="Also end the tunnels that they have opened, at once")
    ] = False,
    cluster: ClusterOption = CLUSTER,
) -> ExitCode:
    """Take tokens of a service back: all that work, or those that are named

    They open nothing new from then on; with --now what they have opened ends too. With --jti a JWT of another
    issuer is taken back too.
    """
    environment = environment_of(context)
    with intent.opened(environment) as store:
        edits.find(store.snapshot(), Kind.SERVICE, cluster, service)
        gone = store.credentials.revoke(cluster, service, ids=ids or (), jtis=jtis or ())
    environment.note(f"revoked: {', '.join(str(token.id) for token in gone)}")
    code = intent.announce(environment)
    if now and gone:
        names = [str(token.id) for token in gone] + [f"jti:{token.jti}" for token in gone if token.jti]
        ended = Control(environment).post("/v1/flows/cut", {"tokens": names})["cut"]
        environment.note(f"ended {ended} tunnels")
    return code


@verb(app, "list", "marchproxy token list", "marchproxy token list web --output json")
def list_all(
    context: typer.Context,
    service: AnyService = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> None:
    """List the tokens of a cluster, or of one service, with their state and last use

    Those that ended more than 30 days ago may be missing. The running daemon writes down uses within seconds.
    """
    environment = environment_of(context)
    snapshot = intent.read(environment)
    if service is None:
        edits.cluster_of(snapshot, cluster)
    else:
        edits.find(snapshot, Kind.SERVICE, cluster, service)
    with intent.opened(environment, read_only=True) as store:
        found = store.credentials.tokens(cluster, service)
    now = datetime.now(UTC)
    show_rows(environment, output, [_row(token, cluster, now) for token in found], _COLUMNS)


def _hand_out(
    environment: Environment,
    of: tuple[str, str],
    output: Output,
    make: "Callable[[Credentials], Issued]",
) -> ExitCode:
    """Print a new token: alone on stdout, so that a script can take it, or as a field of a document."""
    cluster, name = of
    with intent.opened(environment) as store:
        service = edits.find(store.snapshot(), Kind.SERVICE, cluster, name)
        issued = make(store.credentials)
    text = issued.secret or _jwt(cast("Service", service), issued)
    if output is Output.TABLE:
        environment.stdout.write(text + "\n")
    else:
        show_one(environment, output, _row(issued.token, cluster, datetime.now(UTC)) | {"token": text})
    environment.note(f"token {issued.token.id} of service {name} is shown this once: keep it")
    return intent.announce(environment)


def _jwt(service: "Service", issued: "Issued") -> str:
    from marchproxy.dataplane.credentials.issuing import write_jwt

    return write_jwt(service, issued.token, issued.key or b"")


def _lifetime(ttl: str | None) -> timedelta | None:
    return None if ttl is None else timedelta(seconds=parse_duration(ttl, field="ttl"))


def _row(token: "Token", cluster: str, now: datetime) -> Document:
    instants = {name: write_field(name, getattr(token, name)) for name in _INSTANTS}
    return {
        "id": token.id,
        "service": token.service.rpartition("/")[2],
        "cluster": cluster,
        "method": str(Auth.TOKEN if token.jti is None else Auth.JWT),
        "state": str(token.state(now)),
        **instants,
        "jti": token.jti,
    }
