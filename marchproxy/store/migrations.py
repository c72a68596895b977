"""How the schema came about: numbered steps, each committed in one transaction together with its record.

A migration, once released, is never edited. It describes its tables itself instead of borrowing them from
`tables.py`, which always describes the newest schema. MySQL commits every change of a table at once, so there
a step that fails half way has to be cleaned up by hand; SQLite and PostgreSQL undo it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from marchproxy.store.database import Database
from marchproxy.store.ddl import add, create, fill, index, reference, time, widen
from marchproxy.store.errors import SchemaTooNew, SchemaTooOld
from marchproxy.store.writer import insert

if TYPE_CHECKING:
    from pydal import DAL

type Step = Callable[["DAL"], None]


def first_tables(dal: "DAL") -> None:
    """Clusters, services, mappings, interfaces, and the revisions they came from."""
    from pydal import Field

    name, text = 63, "text"
    create(
        dal, "migration", Field("number", "integer", unique=True), Field("name", length=name), time("time")
    )
    create(
        dal,
        "revision",
        Field("number", "integer", notnull=True, unique=True),
        time("time"),
        Field("author", length=64, notnull=True),
        Field("message", length=500, notnull=True),
        Field("sha256", length=64, notnull=True),
    )
    create(
        dal,
        "change",
        reference("revision", "RESTRICT"),
        Field("kind", length=name, notnull=True),
        Field("cluster", length=name),
        Field("name", length=name, notnull=True),
        Field("before", text),
        Field("after", text),
    )
    create(dal, "cluster", Field("name", length=name, notnull=True, unique=True))
    create(
        dal,
        "cluster_key",
        reference("cluster", "CASCADE"),
        Field("hash", length=64, notnull=True, unique=True),
        time("created"),
        Field("expires", "datetime"),
    )
    create(
        dal,
        "service",
        reference("cluster", "RESTRICT"),
        Field("name", length=name, notnull=True),
        Field("addresses", text, notnull=True),
        Field("port", "integer"),
        Field("protocol", text),
        Field("collection", length=name),
        Field("tags", text, notnull=True),
        Field("auth", text, notnull=True),
        Field("weight", "integer", notnull=True),
        Field("tls", "boolean", notnull=True),
        Field("health", text, notnull=True),
        Field("health_interval", "integer"),
        Field("description", text, notnull=True),
    )
    create(
        dal,
        "mapping",
        reference("cluster", "RESTRICT"),
        Field("name", length=name, notnull=True),
        Field("sources", text, notnull=True),
        Field("destinations", text, notnull=True),
        Field("protocols", text, notnull=True),
        Field("ports", text, notnull=True),
        Field("listen", text),
        Field("priority", "integer", notnull=True),
        Field("action", text, notnull=True),
        Field("host", text),
        Field("path_prefix", text),
        Field("auth_required", "boolean", notnull=True),
        Field("expires", "datetime"),
        Field("description", text, notnull=True),
    )
    create(
        dal,
        "interface",
        Field("name", length=name, notnull=True, unique=True),
        Field("role", text, notnull=True),
        Field("mode", text, notnull=True),
    )
    index(dal, "service", "cluster", "name", unique=True)
    index(dal, "mapping", "cluster", "name", unique=True)
    index(dal, "change", "revision")


def gateway_tables(dal: "DAL") -> None:
    """What belongs to the appliance, and more fields of services, mappings, interfaces and clusters."""
    from pydal import Field

    name, text = 255, "text"
    # A blocked host name is longer than any name before it.
    widen(dal, "change", "name", name)
    add(dal, "cluster", Field("audit", "boolean"), "F")
    for field in ("health_timeout", "health_rise", "health_fall"):
        add(dal, "service", Field(field, "integer"), None)
    add(dal, "service", Field("drain", text), "[]")
    add(dal, "mapping", Field("audit", "boolean"), "F")
    add(dal, "mapping", Field("balance", text), "maglev")
    add(dal, "interface", Field("masquerade", "boolean"), "F")
    add(dal, "interface", Field("nat_addresses", text), "[]")
    create(
        dal,
        "block",
        Field("name", length=name, notnull=True, unique=True),
        Field("reason", text, notnull=True),
        Field("origin", text, notnull=True),
        Field("expires", "datetime"),
    )
    create(
        dal,
        "block_list",
        Field("name", length=name, notnull=True, unique=True),
        Field("sha256", length=64, notnull=True),
        Field("entries", "integer", notnull=True),
        Field("origin", text, notnull=True),
        Field("reason", text, notnull=True),
        Field("expires", "datetime"),
    )
    create(
        dal,
        "limit",
        Field("name", length=name, notnull=True, unique=True),
        Field("per", text, notnull=True),
        Field("services", text, notnull=True),
        Field("packets_per_second", "bigint"),
        Field("bytes_per_second", "bigint"),
        Field("flows_per_second", "bigint"),
        Field("burst", "bigint"),
        Field("exempt", text, notnull=True),
    )
    create(
        dal,
        "listener",
        Field("name", length=name, notnull=True, unique=True),
        Field("kind", text, notnull=True),
        Field("bind", text, notnull=True),
    )
    settings: dict[str, int | str] = {
        "name": "settings",
        "audit": "F",
        "refusal": "answer",
        "refusals_per_second": 1000,
        "flow_table": 1048576,
        "timeout_tcp_established": 7440,
        "timeout_tcp_closing": 300,
        "timeout_tcp_opening": 60,
        "timeout_udp": 180,
        "timeout_udp_unanswered": 30,
        "timeout_icmp": 30,
        "resolvers": "[]",
        "private_answers": "[]",
    }
    create(
        dal,
        "settings",
        Field("name", length=name, notnull=True, unique=True),
        Field("audit", "boolean", notnull=True),
        *(Field(key, text, notnull=True) for key in ("refusal", "resolvers", "private_answers")),
        *(Field(key, "integer", notnull=True) for key, value in settings.items() if isinstance(value, int)),
    )
    fill(dal, "settings", settings)


def trials(dal: "DAL") -> None:
    """Revisions that go back unless they are confirmed."""
    from pydal import Field

    create(
        dal,
        "trial",
        Field("revision", "integer", notnull=True),
        Field("previous", "integer", notnull=True),
        Field("seconds", "integer", notnull=True),
        time("deadline"),
        Field("boot", length=63, notnull=True),
        Field("uptime", "integer", notnull=True),
    )


def block_contents(dal: "DAL") -> None:
    """What block lists hold, by SHA-256."""
    from pydal import Field

    create(
        dal,
        "block_contents",
        Field("sha256", length=64, notnull=True, unique=True),
        Field("size", "integer", notnull=True),
    )
    create(
        dal,
        "block_piece",
        Field("contents", "reference block_contents", notnull=True, ondelete="CASCADE"),
        Field("number", "integer", notnull=True),
        Field("data", "text", notnull=True),
    )
    index(dal, "block_piece", "contents", "number", unique=True)


def credentials(dal: "DAL") -> None:
    """Tokens and secrets of services, what JWTs have to be, and what mappings ask of tunnels."""
    from pydal import Field

    add(dal, "service", Field("jwt_algorithm", "text"), "HS256")
    for field in ("jwt_audience", "jwt_issuer", "jwks_url"):
        add(dal, "service", Field(field, "text"), None)
    add(dal, "service", Field("jwt_keys", "text"), "[]")
    add(dal, "mapping", Field("on_expiry", "text"), "keep")
    add(dal, "mapping", Field("sni", "boolean"), "F")
    add(dal, "mapping", Field("sni_missing", "text"), "deny")
    create(
        dal,
        "token",
        reference("service", "CASCADE"),
        Field("hash", length=64, notnull=True),
        Field("jti", length=255),
        time("created"),
        *(Field(name, "datetime") for name in ("expires", "replaced", "revoked", "last_used")),
    )
    create(
        dal,
        "jwt_secret",
        Field("service", "reference service", notnull=True, unique=True, ondelete="CASCADE"),
        Field("sealed", "text", notnull=True),
        time("created"),
    )
    index(dal, "token", "service", "hash", unique=True)


def tunnel_settings(dal: "DAL") -> None:
    """How long tunnels last in user space."""
    from pydal import Field

    defaults = {"tunnel_idle": 3600, "tunnel_lifetime": 0, "handoff_bytes": 65536, "handoff_seconds": 1}
    for field, value in defaults.items():
        kind = "bigint" if field == "handoff_bytes" else "integer"
        add(dal, "settings", Field(field, kind), value)


def certificates(dal: "DAL") -> None:
    """Certificates of clusters with their keys, where listeners speak TLS, and when to warn of an end."""
    from pydal import Field

    add(dal, "mapping", Field("tls", "text"), None)
    add(dal, "listener", Field("tls", "text"), None)
    add(dal, "settings", Field("certificate_warning", "integer"), 30 * 86400)
    create(
        dal,
        "certificate",
        reference("cluster", "CASCADE"),
        Field("name", length=63, notnull=True),
        Field("origin", length=63, notnull=True),
        Field("chain", "text", notnull=True),
        Field("sealed", "text", notnull=True),
        Field("hosts", "text", notnull=True),
        *(Field(name, "text", notnull=True) for name in ("subject", "issuer", "kind")),
        Field("fingerprint", length=64, notnull=True),
        time("created"),
        time("begins"),
        time("expires"),
    )
    index(dal, "certificate", "cluster", "name", unique=True)


def log_settings(dal: "DAL") -> None:
    """Where the logs of clusters go."""
    from pydal import Field

    for field in ("syslog", "ipfix", "log_http"):
        add(dal, "cluster", Field(field, "text"), None)
    add(dal, "cluster", Field("syslog_ca", "text"), "")
    for field in ("log_auth", "log_netflow", "log_debug"):
        add(dal, "cluster", Field(field, "boolean"), "F")
    add(dal, "settings", Field("enterprise_number", "bigint"), 32473)
    create(
        dal,
        "log_token",
        Field("cluster", "reference cluster", notnull=True, unique=True, ondelete="CASCADE"),
        Field("sealed", "text", notnull=True),
        time("created"),
    )


def proxy_protocol(dal: "DAL") -> None:
    """Who says who its client is, and who is told."""
    from pydal import Field

    add(dal, "mapping", Field("proxy_from", "text"), "[]")
    add(dal, "mapping", Field("send_proxy", "text"), "none")


def access_log(dal: "DAL") -> None:
    """HTTP requests in logs."""
    from pydal import Field

    for field in ("log_access", "access_log"):
        add(dal, "cluster", Field(field, "boolean"), "F")


def resilience(dal: "DAL") -> None:
    """What mappings ask of backends that read requests: time, tries, and how many at once."""
    from pydal import Field

    for field in ("connect_timeout", "response_timeout", "idle_timeout"):
        add(dal, "mapping", Field(field, "integer"), None)
    add(dal, "mapping", Field("retry_on", "text"), "[]")
    defaults = {"retry_budget": 20, "eject_after": 5, "eject_for": 10, "eject_most": 50}
    for field, value in (*defaults.items(), ("max_requests", 0), ("max_waiting", 0)):
        add(dal, "mapping", Field(field, "integer"), value)


def request_limits(dal: "DAL") -> None:
    """How many requests may come to a mapping."""
    from pydal import Field

    add(dal, "mapping", Field("limit_requests", "text"), None)
    add(dal, "mapping", Field("limit_burst", "integer"), None)
    add(dal, "mapping", Field("limit_per", "text"), "source")


def client_certificates(dal: "DAL") -> None:
    """Certificates that clients show to mappings, who vouches for those of backends, and traces."""
    from pydal import Field

    add(dal, "mapping", Field("client_ca", "text"), "")
    add(dal, "mapping", Field("client_crl", "text"), "")
    add(dal, "mapping", Field("client_names", "text"), "[]")
    add(dal, "mapping", Field("trace", "boolean"), "F")
    add(dal, "service", Field("tls_ca", "text"), "")


def certificate_sources(dal: "DAL") -> None:
    """Where certificates are fetched from."""
    from pydal import Field

    create(
        dal,
        "certificate_source",
        Field("certificate", "reference certificate", notnull=True, unique=True, ondelete="CASCADE"),
        Field("document", "text", notnull=True),
        Field("sealed", "text", notnull=True),
        time("created"),
    )


def request_conditions(dal: "DAL") -> None:
    """What mappings want of HTTP requests beside host and path prefix."""
    from pydal import Field

    add(dal, "mapping", Field("path", "text"), None)
    for field in ("methods", "headers", "query"):
        add(dal, "mapping", Field(field, "text"), "[]")


def request_actions(dal: "DAL") -> None:
    """What mappings do with HTTP requests and answers."""
    from pydal import Field

    for field in ("redirect", "rewrite_prefix", "rewrite_host"):
        add(dal, "mapping", Field(field, "text"), None)
    add(dal, "mapping", Field("redirect_status", "integer"), 308)
    add(dal, "mapping", Field("sticky", "boolean"), "F")
    for field in ("weights", "request_headers", "response_headers"):
        add(dal, "mapping", Field(field, "text"), "[]")


def introduced_listeners(dal: "DAL") -> None:
    """Who says, at listeners of the appliance, for which client it connects."""
    from pydal import Field

    add(dal, "listener", Field("proxy_from", "text"), "[]")


def request_copies(dal: "DAL") -> None:
    """Who gets copies of requests."""
    from pydal import Field

    add(dal, "mapping", Field("mirror", "text"), None)


def shown_certificates(dal: "DAL") -> None:
    """What backends of services are shown."""
    from pydal import Field

    add(dal, "service", Field("tls_cert", "text"), None)


def acme_accounts(dal: "DAL") -> None:
    """Accounts at CAs that speak ACME."""
    from pydal import Field

    create(
        dal,
        "acme_account",
        reference("cluster", "CASCADE"),
        Field("directory", "text", notnull=True),
        Field("contact", length=320, notnull=True),
        Field("sealed", "text", notnull=True),
        Field("orders", "text", notnull=True),
        time("created"),
    )


def early_requests(dal: "DAL") -> None:
    """Which requests may come before a handshake is complete."""
    from pydal import Field

    add(dal, "mapping", Field("early_data", "boolean"), "F")


MIGRATIONS: tuple[Step, ...] = (
    first_tables,
    gateway_tables,
    trials,
    block_contents,
    credentials,
    tunnel_settings,
    certificates,
    log_settings,
    proxy_protocol,
    access_log,
    resilience,
    request_limits,
    client_certificates,
    certificate_sources,
    request_conditions,
    request_actions,
    introduced_listeners,
    request_copies,
    shown_certificates,
    acme_accounts,
    early_requests,
)
"""In order; the position counted from 1 is a migration's number, the function's name its name."""


def migrate(database: Database) -> None:
    """Run what has not run yet. Two processes may do this at once: each step runs in one of them."""
    for number, step in enumerate(MIGRATIONS, 1):
        if schema_version(database) >= number:
            continue
        with database.writing() as dal:
            if schema_version(database) < number:
                step(dal)
                _record(dal, number, step.__name__)


def schema_version(database: Database) -> int:
    """The number of the last migration that ran here; 0 where there is no schema yet."""
    if not database.has_schema():
        return 0
    return int(database.query("SELECT max(number) FROM migration")[0][0] or 0)


def check_schema(database: Database) -> int:
    """The schema's version, refusing one from the future, and one that a reader would have to migrate."""
    found, known = schema_version(database), len(MIGRATIONS)
    if found > known:
        raise SchemaTooNew(database.label, found, known)
    if 0 < found < known and database.read_only:
        raise SchemaTooOld(database.label, found, known)
    return found


def _record(dal: "DAL", number: int, name: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    insert(dal.migration, number=number, name=name, time=now)
