"""`marchproxy cert`: what listeners prove themselves by where they speak TLS."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.certpull import establish, pull
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage, report, warn
from marchproxy.cli.files import read_bytes
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import CLUSTER, TABLE, ClusterOption, OutputOption, YesOption
from marchproxy.cli.output import Output, show_one, show_rows
from marchproxy.cli.table import Columns
from marchproxy.client import edits
from marchproxy.client.asking import SourceFailed
from marchproxy.client.certorigin import Origin, check_origin
from marchproxy.model import certificate as model
from marchproxy.model.certificate import Certificate, Purpose
from marchproxy.model.collector import parse_certificates
from marchproxy.model.documents import Document, write_field
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.store.x509 import Material

app = noun("Manage certificates: what listeners prove themselves by where they speak TLS")

_COLUMNS: Columns = {
    "NAME": "name",
    "ORIGIN": "origin",
    "STATE": "state",
    "HOSTS": "hosts",
    "EXPIRES": "expires",
    "USED BY": "used_by",
}
# A hundred years: enough for the store to refuse it by name, and representable.
_MOST_DAYS = 36_500

NewName = Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 letters, digits, '.', '_' or '-'")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name", autocompletion=suggest.certificates)]
ChainOption = Annotated[
    str, typer.Option("--certificate", metavar="FILE", help="PEM: the leaf first, then who signed it")
]
KeyOption = Annotated[str, typer.Option("--key", metavar="FILE", help="PEM: the leaf's private key")]
DaysOption = Annotated[
    int | None, typer.Option("--days", metavar="N", help="How long it is valid, 1 to 825; otherwise 365")
]


@verb(
    app,
    "add",
    "marchproxy cert add proxy --certificate fullchain.pem --key privkey.pem",
    "marchproxy cert add web --certificate both.pem --key both.pem --cluster lab",
    revises=False,
)
def add(
    context: typer.Context,
    name: NewName,
    certificate: ChainOption,
    key: KeyOption,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Add a certificate with its private key

    The key has to be the leaf's, the chain in order, and nothing in it expired. The key is encrypted in the
    store, in no revision and in no export; nobody can read it there later. RSA of 2048 bits at least, P-256,
    P-384, P-521 and Ed25519 are taken.
    """
    environment = environment_of(context)
    material = _material(environment, certificate, key)
    with intent.opened(environment) as store:
        made = store.certificates.add(cluster, name, material)
        snapshot = store.snapshot()
    return _tell(environment, made, snapshot, output)


@verb(
    app,
    "generate",
    "marchproxy cert generate proxy --host proxy.example.com --host 10.1.0.1",
    "marchproxy cert generate web --host web.example.com --days 90 --cluster lab",
    "marchproxy cert generate edge --host edge.example.com --client",
)
def generate(
    context: typer.Context,
    name: NewName,
    hosts: Annotated[
        list[str],
        typer.Option("--host", metavar="HOST", help="Name or address that clients call; may be repeated"),
    ],
    days: DaysOption = None,
    client: Annotated[
        bool, typer.Option("--client", help="For backends that want one of us (service --tls-cert)")
    ] = False,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Generate a certificate, signed by the cluster's own CA

    The CA is made when it is first needed, and is the certificate ca: clients that trust it trust this one,
    those that are generated later, and those that are renewed. The
    certificate's key is ECDSA on P-256, the CA's on P-384.
    """
    environment = environment_of(context)
    with intent.opened(environment) as store:
        purpose = Purpose.CLIENTS if client else Purpose.SERVERS
        made = store.certificates.generate(cluster, name, hosts, _lifetime(days), purpose=purpose)
        snapshot = store.snapshot()
    return _tell(environment, made, snapshot, output)


@verb(
    app,
    "renew",
    "marchproxy cert renew proxy",
    "marchproxy cert renew proxy --certificate fullchain.pem --key privkey.pem",
)
def renew(
    context: typer.Context,
    name: Name,
    certificate: Annotated[
        str | None, typer.Option("--certificate", metavar="FILE", help="The new chain, as of add")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="FILE", help="Its private key")] = None,
    days: DaysOption = None,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Replace a certificate by a newer one

    What was generated is signed again for the same hosts, with a new key. What was added is replaced by what
    the files hold. New connections get the new one at once; those that stand are not disturbed. To renew ca
    is to make a new CA: clients have to be told of it before what it signs is of use.
    """
    environment = environment_of(context)
    if (certificate is None) is not (key is None):
        raise WrongUsage("--certificate and --key belong together")
    if certificate is not None and days is not None:
        raise WrongUsage(
            "--days is for what is generated: a certificate from a file says itself when it ends"
        )
    material = None if certificate is None or key is None else _material(environment, certificate, key)
    with intent.opened(environment) as store:
        made = (
            store.certificates.renew(cluster, name, _lifetime(days))
            if material is None
            else store.certificates.replace(cluster, name, material)
        )
        snapshot = store.snapshot()
    return _tell(environment, made, snapshot, output)


@verb(
    app,
    "source",
    "marchproxy cert source web --vault https://vault.example:8200 --path pki/issue/web"
    " --hosts www.example.com --secret-file token",
    "marchproxy cert source web --vault https://vault.example:8200 --path secret/data/tls/web --role-id 5b1c…"
    " --secret-file secret-id",
    "marchproxy cert source web --infisical https://app.infisical.com --project 64a8… --environment prod"
    " --certificate-secret TLS_CERT --key-secret TLS_KEY --client-id 9f2e… --secret-file client-secret",
    "marchproxy cert source web --acme https://acme-v02.api.letsencrypt.org/directory --hosts www.example.com"
    " --contact admin@example.com --agree-terms --challenge-listen '*:80'",
    "marchproxy cert source web --acme https://acme-v02.api.letsencrypt.org/directory --hosts www.example.com"
    " --agree-terms --challenge tls-alpn-01",
    "marchproxy cert source web --forget",
    revises=False,
)
def source(
    context: typer.Context,
    name: NewName,
    vault: Annotated[
        str, typer.Option(metavar="URL", help="HashiCorp Vault, or what speaks as it does")
    ] = "",
    path: Annotated[
        str, typer.Option(metavar="PATH", help="Vault: PKI/issue/ROLE, or of a secret: secret/data/NAME")
    ] = "",
    hosts: Annotated[
        str, typer.Option(metavar="HOST[,…]", help="ACME, Vault's PKI: names and addresses it is for")
    ] = "",
    ttl: Annotated[str, typer.Option(metavar="TIME", help="Vault's PKI: how long, as of its role")] = "",
    role_id: Annotated[str, typer.Option(metavar="ID", help="Vault: log in by AppRole")] = "",
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Vault: its namespace")] = "",
    infisical: Annotated[str, typer.Option(metavar="URL", help="Infisical")] = "",
    project: Annotated[str, typer.Option(metavar="ID", help="Infisical: the project")] = "",
    environment_name: Annotated[
        str, typer.Option("--environment", metavar="SLUG", help="Infisical: its environment, such as prod")
    ] = "",
    folder: Annotated[str, typer.Option(metavar="PATH", help="Infisical: folder of the secrets, /")] = "",
    certificate_secret: Annotated[
        str, typer.Option(metavar="NAME", help="Infisical: the secret that holds the chain")
    ] = "",
    key_secret: Annotated[str, typer.Option(metavar="NAME", help="Infisical: the one with its key")] = "",
    client_id: Annotated[str, typer.Option(metavar="ID", help="Infisical: of Universal Auth")] = "",
    acme: Annotated[str, typer.Option(metavar="URL", help="A CA that speaks ACME: its directory")] = "",
    contact: Annotated[
        str, typer.Option(metavar="EMAIL", help="ACME: where the CA writes to, if anywhere")
    ] = "",
    agree_terms: Annotated[
        bool, typer.Option("--agree-terms", help="ACME: you agree to the terms of the CA")
    ] = False,
    challenge: Annotated[
        str, typer.Option(metavar="KIND", help="ACME: http-01, or tls-alpn-01 by our TLS listeners")
    ] = "",
    challenge_listen: Annotated[
        str,
        typer.Option(
            metavar="ADDR:PORT", help="ACME: where challenges are answered during an order; *:80 is all"
        ),
    ] = "",
    key_id: Annotated[
        str, typer.Option(metavar="ID", help="ACME: of an external account, whose key is the secret")
    ] = "",
    secret_file: Annotated[
        str, typer.Option(metavar="FILE", help="What opens it: token, secret ID or client secret; - is stdin")
    ] = "",
    ca: Annotated[str, typer.Option(metavar="FILE", help="CA of its server in PEM form; the system's")] = "",
    forget: Annotated[bool, typer.Option("--forget", help="Fetch it no more; it stays as it is")] = False,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Take a certificate from a secret store or an ACME CA, now and from then on

    It is fetched at once, and nothing changes unless it can be used. The daemon looks every five minutes for
    another one: ACME and Vault's PKI are asked in the last third of a certificate's life, secrets are
    compared. What opens the store is encrypted here, and in no revision, export or log.

    An ACME CA fetches http://HOST/.well-known/acme-challenge/… of each host at port 80, which has to lead to
    --challenge-listen. There is a listener only while an order is under way, and it answers nothing else.
    With --challenge tls-alpn-01 it connects to port 443 instead, which has to lead to a listener with --tls,
    or to --challenge-listen. The account's key is made here.
    """
    environment = environment_of(context)
    if forget:
        with intent.opened(environment) as store:
            if not store.certificate_sources.forget(cluster, name):
                raise Conflict(f"certificate {name!r} is not fetched from anywhere")
        environment.note(f"certificate {name} is fetched no more")
        return ExitCode.DONE
    kinds = {"vault": vault, "infisical": infisical, "acme": acme}
    if len([url for url in kinds.values() if url]) != 1:
        raise WrongUsage("say one of --vault, --infisical and --acme")
    [kind] = [kind for kind, url in kinds.items() if url]
    given = {
        "path": path,
        "hosts": hosts.replace(" ", ""),
        "ttl": ttl,
        "role_id": role_id,
        "namespace": namespace,
        "project": project,
        "environment": environment_name,
        "folder": folder,
        "certificate": certificate_secret,
        "key": key_secret,
        "client_id": client_id,
        "contact": contact,
        "terms": "agreed" if agree_terms else "",
        "challenge": challenge,
        "listen": challenge_listen,
        "key_id": key_id,
    }
    origin = check_origin(
        Origin(
            kind=kind,
            url=acme or (vault or infisical).rstrip("/"),
            options={option: value for option, value in given.items() if value},
            ca=parse_certificates(read_bytes(environment, ca).decode("ascii", "replace"), field="ca")
            if ca
            else "",
            secret=read_bytes(environment, secret_file).decode("utf-8", "replace").strip()
            if secret_file
            else "",
        )
    )
    if acme:
        environment.note(f"ordering a certificate for {given['hosts']} at {acme}: two minutes at most")
    with intent.opened(environment) as store:
        made = establish(store, cluster, name, origin, environment.control_socket.parent)
        snapshot = store.snapshot()
    return _tell(environment, made, snapshot, output)


@verb(app, "pull", "marchproxy cert pull", "marchproxy cert pull web --now", revises=False)
def pull_all(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this one; all, of all clusters")] = "",
    now: Annotated[bool, typer.Option("--now", help="Also where it is not time yet")] = False,
    cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help="Only of this cluster")] = "",
) -> ExitCode:
    """Fetch certificates that come from a secret store or an ACME CA, where it is time

    The daemon does this every five minutes. What cannot be fetched stays as it is, and is an error here. A CA
    whose order failed is left alone for a while, unless --now is said.
    """
    environment = environment_of(context)
    with intent.opened(environment) as store:
        among = cluster or (CLUSTER if name else "")
        found = list(pull(store, environment.control_socket.parent, among, name, now=now))
    if name and not found:
        raise NotFound("source", name, hint="marchproxy cert source says where a certificate comes from")
    changed = [each for each in found if each.certificate is not None]
    for each in changed:
        environment.note(f"certificate {each.name} of cluster {each.cluster} is another one now")
    for each in found:
        if each.failure:
            report(
                SourceFailed(f"certificate {each.name} of cluster {each.cluster}: {each.failure}"),
                environment,
            )
    announced = intent.announce(environment) if changed else ExitCode.DONE
    return ExitCode.FAILED if any(each.failure for each in found) else announced


@verb(app, "list", "marchproxy cert list", "marchproxy cert list --output json")
def list_all(context: typer.Context, cluster: ClusterOption = CLUSTER, output: OutputOption = TABLE) -> None:
    """List the certificates of a cluster with their state and who uses them"""
    environment = environment_of(context)
    with intent.opened(environment, read_only=True) as store:
        snapshot = store.snapshot()
        edits.cluster_of(snapshot, cluster)
        found = store.certificates.every(cluster)
    show_rows(environment, output, [_row(each, snapshot) for each in found], _COLUMNS)


@verb(app, "show", "marchproxy cert show proxy", "marchproxy cert show ca --pem > ca.pem")
def show(
    context: typer.Context,
    name: Name,
    pem: Annotated[bool, typer.Option("--pem", help="Print the certificate alone, as PEM")] = False,
    cluster: ClusterOption = CLUSTER,
    output: OutputOption = TABLE,
) -> None:
    """Show one certificate

    With --pem the chain that clients are shown, without its key; that of ca is what clients have to trust.
    """
    environment = environment_of(context)
    with intent.opened(environment, read_only=True) as store:
        snapshot, found = store.snapshot(), store.certificates.find(cluster, name)
    if pem:
        environment.stdout.write(found.chain)
        return
    more = {} if output is Output.TABLE else {"certificate": found.chain}
    show_one(environment, output, _row(found, snapshot) | more)


@verb(app, "remove", "marchproxy cert remove proxy --yes", revises=False)
def remove(
    context: typer.Context, name: Name, cluster: ClusterOption = CLUSTER, yes: YesOption = False
) -> None:
    """Remove a certificate and its private key

    It is refused while a mapping or listener uses it. No rollback brings it back. It asks first on a
    terminal; a script says --yes.
    """
    environment = environment_of(context)
    if not yes:
        with intent.opened(environment, read_only=True) as store:
            store.certificates.find(cluster, name)
        intent.confirm(environment, f"remove certificate {name} and its key", yes)
    with intent.opened(environment) as store:
        store.certificates.remove(cluster, name)
    environment.note(f"removed certificate {name}")


def _material(environment: Environment, certificate: str, key: str) -> "Material":
    """What the files hold, once it is known that TLS can be spoken with it."""
    from marchproxy.dataplane.credentials.contexts import Unusable, server_context
    from marchproxy.store.certificates import Identity
    from marchproxy.store.x509 import read_material

    if certificate == key == "-":
        data = read_bytes(environment, "-")
        chain, private = data, data
    else:
        chain, private = read_bytes(environment, certificate), read_bytes(environment, key)
    try:
        material = read_material(chain, private, datetime.now(UTC))
    except InvalidValue as error:
        file = {"certificate": certificate, "key": key}[error.field]
        # What is wrong in a file that can be read at all, the error says by itself.
        raise InvalidValue(error.field, file if error.value == "…" else error.value, error.expected) from None
    try:
        server_context(Identity(certificate, material.chain, material.key))
    except Unusable as error:
        expected = f"a certificate that TLS can be spoken with: {error.message}"
        raise InvalidValue("certificate", certificate, expected) from None
    return material


def _tell(environment: Environment, made: Certificate, snapshot: Snapshot, output: Output) -> ExitCode:
    """Say what there is now, warn of what clients will not like, and have the daemon take it over."""
    facts, row = made.facts, _row(made, snapshot)
    environment.note(f"certificate {made.name}: {facts.kind}, expires {row['expires']}")
    if output is not Output.TABLE:
        show_one(environment, output, row)
    if not facts.hosts and made.origin is not model.Origin.AUTHORITY:
        message = f"certificate {made.name} names no host in its subject alternative names"
        warn(environment, message, "clients refuse it, whatever its subject says")
    if row["state"] not in ("valid", "expired"):
        warn(environment, f"certificate {made.name}: {row['state']}: {row['begins']} to {row['expires']}")
    return intent.announce(environment)


def _row(certificate: Certificate, snapshot: Snapshot) -> Document:
    facts = certificate.facts
    return {
        "name": certificate.name,
        "cluster": certificate.cluster,
        "origin": str(certificate.origin),
        "state": _state(certificate, snapshot, datetime.now(UTC)),
        "hosts": list(facts.hosts),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "key": facts.kind,
        "fingerprint": facts.fingerprint,
        "begins": write_field("begins", facts.begins),
        "expires": write_field("expires", facts.expires),
        "created": write_field("created", certificate.created),
        "used_by": list(_users(snapshot).get(certificate.qualified, ())),
    }


def _users(snapshot: Snapshot) -> Mapping[str, Sequence[str]]:
    from marchproxy.store.certificates import uses

    found: dict[str, list[str]] = {}
    for user, name in uses(snapshot):
        found.setdefault(name, []).append(user)
    return found


def _state(certificate: Certificate, snapshot: Snapshot, now: datetime) -> str:
    facts = certificate.facts
    if facts.expires <= now:
        return "expired"
    if now < facts.begins:
        return "not yet valid"
    ahead = timedelta(seconds=snapshot.settings.certificate_warning)
    return "expires soon" if certificate.warns(ahead) <= now else "valid"


def _lifetime(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=max(-_MOST_DAYS, min(days, _MOST_DAYS)))
