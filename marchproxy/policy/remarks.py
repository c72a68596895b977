"""What the operator should know about one mapping, as findings."""

from collections.abc import Collection, Iterator, Sequence

from marchproxy.model.address import HostName, IPAddress
from marchproxy.model.endpoint import Endpoints
from marchproxy.model.entities import Mapping
from marchproxy.model.ports import format_ports, single_port
from marchproxy.model.protocol import Transport
from marchproxy.policy.directory import Referents
from marchproxy.policy.plan import Backend, Finding, Pool, Severity
from marchproxy.policy.pools import Choice

type Backing = Sequence[tuple[IPAddress, Pool | None]]
"""Listen addresses of a mapping, and the pool behind each."""


def reference_findings(subject: str, referents: Referents) -> Iterator[Finding]:
    """References to nothing."""
    for name in referents.unknown:
        yield Finding(
            Severity.ERROR, subject, f"names service {name}, which does not exist", "add the service"
        )
    for name in referents.empty:
        yield Finding(Severity.WARNING, subject, f"names {name}, to which no service belongs")


def listen_findings(
    subject: str, mapping: Mapping, listen: Endpoints, management: Collection[int]
) -> Iterator[Finding]:
    """What is wrong with where a mapping listens, and for what. `management`: TCP ports of the host."""
    over_tcp = any(protocol.transport is Transport.TCP for protocol in mapping.protocols)
    for port in sorted(port for port in management if over_tcp and port in listen.ports):
        message = f"listens on {port}/tcp and would capture the management port"
        yield Finding(Severity.ERROR, subject, message, "choose another port")
    for protocol in mapping.protocols:
        if protocol.transport is None:
            yield Finding(Severity.WARNING, subject, f"cannot listen for {protocol}: not carried, denied")


def backend_findings(subject: str, mapping: Mapping, choice: Choice, backing: Backing) -> Iterator[Finding]:
    """What is wrong with the destinations: errors where no backend can ever come, else warnings.

    Listening on `*` with backends of one family is no mistake: the other family is then not listened for.
    """
    unbacked = not any(pool for _, pool in backing)
    severity = Severity.ERROR if unbacked and not choice.hosts else Severity.WARNING
    for problem in choice.problems:
        yield Finding(severity, subject, problem)
    ranged = mapping.listen is not None and len(mapping.listen.ports) > 1
    if choice.members and mapping.ports and single_port(mapping.ports) is None and not ranged:
        message = f"lists {format_ports(mapping.ports)} for one listen port: each backend is asked on its own"
        yield Finding(Severity.WARNING, subject, message, "list the one port of the backends")
    if unbacked:
        missing = " or ".join(f"IPv{address.version}" for address, _ in backing)
        message = f"has no {missing} backend: such clients of {mapping.listen} are denied"
        hint = f"waiting for {', '.join(choice.hosts)}" if choice.hosts else "add an address to a destination"
        yield Finding(severity, subject, message, hint)
    elif choice.drained:
        message = "sends to drained backends only: new connections are denied"
        yield Finding(Severity.WARNING, subject, message, "drain all but one, or add a backend")


def loop_findings(subject: str, listen: Endpoints, choice: Choice, backing: Backing) -> Iterator[Finding]:
    """Backends that are the very listener, which would connect to itself for as long as it can.

    An error where the operator wrote the address; a warning where a name resolves to it, because whoever
    runs that name must not be able to stop the next configuration from being applied.
    """
    for address, pool in backing:
        for backend in pool.backends if pool else ():
            if backend.port in listen.ports and _is_reached_at(backend.address, address):
                severity = Severity.ERROR if _is_written(backend, choice) else Severity.WARNING
                message = f"would send traffic of {listen} back to itself: {backend.service} has that address"
                yield Finding(severity, subject, message, "listen on another address or port")


def redirect_findings(subject: str, mapping: Mapping) -> Iterator[Finding]:
    """A redirect of requests to where they came from."""
    scheme, port = ("https", 443) if mapping.tls else ("http", 80)
    here = {f"{scheme}://{{host}}{{path}}", f"{scheme}://{mapping.host}{{path}}"}
    again = mapping.redirect in here and mapping.listen is not None and port in mapping.listen.ports
    if again and mapping.rewrite_prefix is None:
        message = f"sends clients to {mapping.redirect}, where they come from: they go round in circles"
        yield Finding(Severity.WARNING, subject, message, "redirect to another host, path, or to https")


def _is_reached_at(address: IPAddress, listen: IPAddress) -> bool:
    """Which addresses are the appliance's own is not known here; those of loopback always are."""
    return address == listen or (listen.is_unspecified and address.is_loopback)


def _is_written(backend: Backend, choice: Choice) -> bool:
    addresses = next(entry.service.addresses for entry, _ in choice.members if entry.name == backend.service)
    return any(not isinstance(item, HostName) and backend.address in item for item in addresses)
