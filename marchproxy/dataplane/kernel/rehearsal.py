"""Asking the programs in the kernel what they would do with the first packet of a flow.

They are run on a packet that never was on any wire (see `testrun`). What is attached would write down a flow
and count; so a second instance of the same program is loaded for the question: it shares the maps of the
policy in force, has tables of its own for all that programs write (`loading.PRIVATE`), and is gone
afterwards.
"""

from collections.abc import Callable, Collection
from secrets import randbelow

from marchproxy.dataplane.agreement import KernelAnswer
from marchproxy.dataplane.kernel import layouts, testrun
from marchproxy.dataplane.kernel.firstpacket import first_packet
from marchproxy.dataplane.kernel.interfaces import index_of
from marchproxy.dataplane.kernel.loading import RehearsalProgram
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.routelookup import hardware_address, way_to
from marchproxy.dataplane.kernel.sourceaddress import source_towards
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Query

_FIRST_PORT, _PORTS = 49152, 16384
"""Of clients (RFC 6335 section 6)."""


def rehearse(
    query: Query, load: Callable[[], RehearsalProgram], names: MappingNames, attached: Collection[str]
) -> KernelAnswer | str:
    """The answer, or in words why there is none. `attached` are interfaces that have the programs.

    Raises `KernelError` where the program cannot be loaded or run.
    """
    interface = way_to(query.source)
    if interface is None:
        return f"no route leads to {query.source}, so its packets arrive by no interface"
    if interface not in attached:
        return (
            f"packets of {query.source} would arrive at {interface}, which the programs are not attached to"
        )
    destination = query.destination
    if destination.is_unspecified:
        # Any of the appliance's own addresses is meant: the one that this client would see.
        destination = source_towards(query.source) or destination
    port = _FIRST_PORT + randbelow(_PORTS)
    frame, key = first_packet(
        query.source, destination, port, query.port, query.transport, hardware_address(interface)
    )
    program = load()
    try:
        testrun.run(program.tc, frame, ifindex=index_of(interface))
        found = _read(program, key, names, interface)
    finally:
        program.close()
    if found.verdict is Verdict.HOST and not query.is_local() and way_to(destination) is None:
        # Programs cannot tell such an address from one of the host's own. The host has no route either.
        return KernelAnswer(Verdict.DENY, Reason.NO_ROUTE, "", interface)
    return found


def _read(program: RehearsalProgram, key: bytes, names: MappingNames, interface: str) -> KernelAnswer:
    """What the program has written down in its tables."""
    reason = _counted(program)
    if reason is Reason.PASSED_TO_HOST:
        return KernelAnswer(Verdict.HOST, reason, "", interface)
    raw = program.maps["opening"].get(key)
    entry = layouts.read_flow(raw) if raw else None
    backend = _endpoint(entry.destination, entry.destination_port) if entry else None
    seen_as = _endpoint(entry.source, entry.source_port) if entry else None
    refusals = _refusals(program)
    if reason is not Reason.FORWARDED:
        mapping = refusals.get((layouts.EVENT_DENIED, reason), 0)
        return KernelAnswer(Verdict.DENY, reason, names.name(mapping), interface)
    for (kind, audited), mapping in refusals.items():
        if kind == layouts.EVENT_AUDITED:
            return KernelAnswer(Verdict.AUDIT, audited, names.name(mapping), interface, backend, seen_as)
    mapping = entry.mapping if entry else 0
    return KernelAnswer(Verdict.ALLOW, reason, names.name(mapping), interface, backend, seen_as)


def _endpoint(address: bytes, port: bytes) -> Endpoint:
    return Endpoint(layouts.read_address(address), layouts.read_port(port))


def _counted(program: RehearsalProgram) -> Reason:
    """Why the packet ended as it did: each is counted under one reason."""
    for key, cells in program.maps["counters"].items_percpu():
        if any(layouts.COUNTER.struct.unpack(cell)[0] for cell in cells):
            return Reason(layouts.U32.unpack(key)[0])
    raise ValueError("the program counted nothing")


def _refusals(program: RehearsalProgram) -> dict[tuple[int, Reason], int]:
    """Numbers of mappings, by whether it was denied or audited, and the reason."""
    found = {}
    for key, _ in program.maps["denied"].items_percpu():
        mapping, reason, kind = layouts.DENIED_KEY.struct.unpack(key)
        found[kind, Reason(reason)] = mapping
    return found
