"""`marchproxy cluster`: isolated sets of services and mappings, each with an API key."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Field, Switch, amend, given, on_off
from marchproxy.cli.files import read_bytes
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.cli.output import Output, show_one, show_rows
from marchproxy.client import edits
from marchproxy.model.change import Change, Kind, patch
from marchproxy.model.documents import Document, to_document, write_field
from marchproxy.model.entities import ClusterHead
from marchproxy.model.errors import Conflict
from marchproxy.model.names import parse_name
from marchproxy.model.snapshot import Cluster, Snapshot

if TYPE_CHECKING:
    from marchproxy.store.store import Store

app = noun("Manage clusters: isolated sets of services and mappings")

_TOKEN, _CA = "log_http_token", "syslog_ca"
FIELDS = (
    Field("audit", "--audit", "on|off", "Report what would be denied, and let it through", on_off),
    Field("syslog", "--syslog", "URL", "Send logs by syslog: udp://ADDR:PORT, tcp://… or tls://HOST:PORT"),
    Field(_CA, "--syslog-ca", "FILE", "Certificates that vouch for a syslog server on TLS; the system's"),
    Switch("log_auth", "log-auth", "Log who is let in and who is refused"),
    Switch("log_netflow", "log-netflow", "Log beginnings and ends of flows, and denials"),
    Switch("log_access", "log-access", "Log every HTTP request that is read"),
    Switch("access_log", "access-log", "Write these to /var/log/marchproxy/access-CLUSTER.jsonl"),
    Switch("log_debug", "log-debug", "Log what helps to find faults"),
    Field("ipfix", "--ipfix", "URL", "Send flow records by IPFIX: udp://ADDR:PORT or tcp://ADDR:PORT"),
    Field("log_http", "--log-http", "URL", "Send what is logged (else flows and denials) as JSON in batches"),
    Field(_TOKEN, "--log-http-token", "FILE", "Bearer token for that address, kept encrypted; - is stdin"),
)
_COLUMNS = {"NAME": "name", "SERVICES": "services", "MAPPINGS": "mappings", "AUDIT": "audit"}
NewName = Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 letters, digits, '.', '_' or '-'")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name", autocompletion=suggest.clusters)]


def show_key(environment: Environment, output: Output, cluster: str, key: str) -> None:
    """Print a new API key: alone on stdout, so that a script can take it, and as a field of a document."""
    if output is Output.TABLE:
        environment.stdout.write(key + "\n")
    else:
        show_one(environment, output, {"name": cluster, "api_key": key})
    environment.note(f"the API key of cluster {cluster} is shown this once: keep it")


@verb(app, "add", "marchproxy cluster add lab", "KEY=$(marchproxy cluster add lab)")
def add(context: typer.Context, name: NewName, output: OutputOption = TABLE) -> ExitCode:
    """Add a cluster and print its API key

    Only the key's hash is stored, so it is printed this once. Services and mappings of one cluster do not see
    those of another.
    """
    environment = environment_of(context)
    cluster = Cluster(parse_name(name))

    def build(snapshot: Snapshot) -> Snapshot:
        if snapshot.cluster(cluster.name):
            raise Conflict(
                f"cluster {cluster.name!r} exists already", hint="marchproxy cluster list shows it"
            )
        return replace(snapshot, clusters=tuple(sorted((*snapshot.clusters, cluster), key=_by_name)))

    with intent.opened(environment) as store:
        intent.commit(environment, store, f"add cluster {cluster.name}", build)
        key = store.create_cluster_key(cluster.name)
    show_key(environment, output, cluster.name, key)
    return intent.announce(environment)


@verb(app, "list", "marchproxy cluster list")
def list_all(context: typer.Context, output: OutputOption = TABLE) -> None:
    """List the clusters with the number of their services and mappings"""
    environment = environment_of(context)
    rows = [_row(cluster) for cluster in intent.read(environment).clusters]
    show_rows(environment, output, rows, _COLUMNS)


@verb(app, "show", "marchproxy cluster show default")
def show(context: typer.Context, name: Name, output: OutputOption = TABLE) -> None:
    """Show one cluster"""
    environment = environment_of(context)
    row = _row(edits.cluster_of(intent.read(environment), name))
    if output is Output.TABLE and row[_CA]:
        row[_CA] = f"{row[_CA].count('-----BEGIN')} in PEM form"
    show_one(environment, output, row)


@verb(
    app,
    "set",
    "marchproxy cluster set lab --audit on",
    "marchproxy cluster set lab --audit off",
    "marchproxy cluster set default --syslog udp://192.0.2.5:514 --log-auth --log-netflow",
    "marchproxy cluster set default --syslog tls://logs.example:6514 --syslog-ca ca.pem --log-auth",
    "marchproxy cluster set default --ipfix udp://192.0.2.5:4739",
    "marchproxy cluster set default --log-http https://logs.example/ingest --log-http-token token.txt",
    "marchproxy cluster set default --access-log",
    "marchproxy cluster set default --syslog '' --no-log-debug",
    fields=FIELDS,
)
def change(context: typer.Context, name: Name, output: OutputOption = TABLE) -> ExitCode:
    """Change a cluster

    With --audit on nothing is denied for want of a mapping of this cluster, or by one: what would be is
    reported and let through.

    --syslog and --log-http take what --log-auth, --log-netflow, --log-access and --log-debug switch on.
    --access-log needs no other switch. An empty value, such as --ipfix '', ends what it began; files are read
    now and stored.
    """
    environment, changes = environment_of(context), given(context)
    then = _read_files(environment, changes)
    changed: list[Cluster] = []

    def build(snapshot: Snapshot) -> Snapshot:
        before = to_document(edits.cluster_of(snapshot, name).head)
        after = patch(snapshot, [Change(Kind.CLUSTER, "", name, before, amend(before, changes))])
        changed[:] = [edits.cluster_of(after, name)]
        return after

    code = intent.write(environment, f"set cluster {name}", build, then and (lambda store: then(store, name)))
    _hint(environment, changed[0])
    if output is not Output.TABLE:
        show_one(environment, output, _row(changed[0]))
    return code


@verb(app, "remove", "marchproxy cluster remove lab --yes")
def remove(context: typer.Context, name: Name, yes: YesOption = False) -> ExitCode:
    """Remove a cluster with all its services, mappings and certificates, and its API key

    It asks first on a terminal; a script says --yes. The default cluster stays.
    """
    environment = environment_of(context)
    with intent.opened(environment, read_only=True) as store:
        held, certificates = edits.cluster_of(store.snapshot(), name), store.certificates.every(name)
    contents = f"services: {len(held.services)}, mappings: {len(held.mappings)}"
    if certificates:
        contents += f", certificates: {len(certificates)}"
    intent.confirm(environment, f"remove cluster {name} ({contents})", yes)

    def build(snapshot: Snapshot) -> Snapshot:
        gone = edits.cluster_of(snapshot, name)
        kept = tuple(cluster for cluster in snapshot.clusters if cluster is not gone)
        return replace(snapshot, clusters=kept)

    return intent.write(environment, f"remove cluster {name}", build)


@verb(app, "rotate-key", "marchproxy cluster rotate-key default")
def rotate_key(context: typer.Context, name: Name, output: OutputOption = TABLE) -> None:
    """Replace the API key of a cluster and print the new one

    The old key stays valid for an overlap, so that whoever uses it can change over.
    """
    environment = environment_of(context)
    with intent.opened(environment) as store:
        edits.cluster_of(store.snapshot(), name)
        key = store.rotate_cluster_key(name)
    show_key(environment, output, name, key)


def _read_files(environment: Environment, changes: dict[str, Any]) -> "Callable[[Store, str], None] | None":
    """Put the certificates in place of their file; returns what keeps a token, which no revision holds.

    Another address has no token unless one is given with it.
    """
    if changes.get(_CA):
        changes[_CA] = read_bytes(environment, changes[_CA]).decode("ascii", "replace")
    elif _CA not in changes and not changes.get("syslog", "tls").lower().startswith("tls:"):
        # Those of a server that is no longer logged to.
        changes[_CA] = ""
    file = changes.pop(_TOKEN, None)
    token = read_bytes(environment, file).strip() if file else None
    if file is None and "log_http" not in changes:
        return None
    if token is not None:
        from marchproxy.store.credentials import check_log_token

        check_log_token(token)

    def keep(store: "Store", name: str) -> None:
        address = edits.cluster_of(store.snapshot(), name).log_http
        store.credentials.keep_log_token(name, address or "", token if address else None)

    return keep


def _hint(environment: Environment, cluster: Cluster) -> None:
    """Say what is set up by half."""
    classes = cluster.log_auth or cluster.log_netflow or cluster.log_access or cluster.log_debug
    if cluster.syslog and not classes:
        environment.note(
            "nothing goes to syslog before --log-auth, --log-netflow, --log-access or --log-debug"
        )
    elif classes and not (cluster.syslog or cluster.log_http):
        environment.note("nothing is logged before --syslog or --log-http says where to")


def _row(cluster: Cluster) -> Document:
    counts = {"services": len(cluster.services), "mappings": len(cluster.mappings)}
    own = {field.name: write_field(field.name, getattr(cluster, field.name)) for field in fields(ClusterHead)}
    return {"name": cluster.name, **counts, **own}


def _by_name(cluster: Cluster) -> str:
    return cluster.name
