"""What the wizard writes: one revision, the guard of the service, and a service that runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from marchproxy.cli import intent, unit
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.client import edits
from marchproxy.client.session import Session
from marchproxy.dataplane.machine import Device
from marchproxy.model.appliance import BlockList
from marchproxy.model.change import Kind
from marchproxy.model.documents import read_entity
from marchproxy.model.entities import Interface
from marchproxy.model.errors import Conflict, DaemonNotRunning
from marchproxy.model.management import VARIABLE, read_management_ports
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.model.blocklist import BlockContents
    from marchproxy.store.store import Store

_MESSAGE = "first configuration, by init --wizard"


@dataclass(frozen=True, slots=True)
class Blocked:
    """A block list, and what is in it."""

    item: BlockList
    contents: "BlockContents"


@dataclass(frozen=True, slots=True)
class Wish:
    """Everything that is to be written."""

    interfaces: tuple[Interface, ...]
    blocked: Blocked | None
    ports: tuple[int, ...]
    """TCP ports of this machine that no mapping may take over."""
    start: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What was written."""

    created: bool
    """Whether there was no store before."""
    key: str | None
    """The API key of the cluster `default`, where it was made now."""
    code: ExitCode


def write(environment: Environment, wish: Wish, *, managed: bool) -> Done:
    """Write it, and start the service where that is wished and systemd has it (`managed`).

    Raises `MarchproxyError`; `Conflict` where somebody has configured the appliance meanwhile.
    """
    guarded = managed and _guard(wish.ports)
    with intent.opened(environment, create=True) as store:
        contents = [wish.blocked.contents.pack()] if wish.blocked else []
        intent.commit(environment, store, _MESSAGE, lambda held: _applied(held, wish), contents=contents)
        created, key = store.created, _key(store)
    if managed and wish.start:
        _start(environment, anew=guarded)
    code = intent.announce(environment)
    _tell(environment, wish, managed)
    return Done(created, key, code)


def refuse_configured(environment: Environment) -> None:
    """Raise `Conflict` where this appliance has interfaces already: the wizard is for the first time."""
    from marchproxy.store.errors import StoreMissing

    try:
        held = intent.read(environment)
    except StoreMissing:
        return
    _refuse_interfaces(held)


def martians(found: Sequence[Device], session: Session | None) -> Blocked:
    """The builtin list, without what this machine is in itself, or its operator."""
    from ipaddress import ip_network

    from marchproxy.model.blockfile import read_blocks
    from marchproxy.model.martians import MARTIANS

    ours = [address for device in found for address in device.addresses]
    ours += [session.client] if session else []
    foreign = [text for text, _ in MARTIANS if not any(each in ip_network(text) for each in ours)]
    return block_list("martians", read_blocks(foreign, datetime.now(UTC)).contents, "MarchProxy")


def block_list(name: str, contents: "BlockContents", origin: str) -> Blocked:
    """The list and its contents. Raises `InvalidValue` for a name that none can have."""
    from marchproxy.model.blocklist import name_of

    document = {"name": name, "sha256": name_of(contents.pack()), "entries": len(contents), "origin": origin}
    return Blocked(read_entity(BlockList, document), contents)


def _refuse_interfaces(held: Snapshot) -> None:
    if held.interfaces:
        names = ", ".join(interface.name for interface in held.interfaces)
        raise Conflict(
            f"this appliance is configured already: it has {names}",
            hint="marchproxy interface changes that; marchproxy reset makes it as new",
        )


def _applied(held: Snapshot, wish: Wish) -> Snapshot:
    _refuse_interfaces(held)
    for interface in wish.interfaces:
        held = edits.put(held, Kind.INTERFACE, "", interface)
    if wish.blocked:
        held = edits.put(held, Kind.BLOCK_LIST, "", wish.blocked.item)
    return replace(held, settings=replace(held.settings, audit=True))


def _key(store: "Store") -> str | None:
    """The first key of the default cluster; None where it has one."""
    return None if store.cluster_keys(DEFAULT_CLUSTER) else store.create_cluster_key(DEFAULT_CLUSTER)


def _guard(ports: tuple[int, ...]) -> bool:
    """Have the service know the ports; whether that is news."""
    known = read_management_ports({VARIABLE: unit.read_variable(VARIABLE) or ""})
    if ports == tuple(sorted(known)):
        return False
    unit.write_variable(VARIABLE, ",".join(map(str, ports)))
    return True


def _start(environment: Environment, *, anew: bool) -> None:
    """`anew`: one that runs has to read its environment."""
    active = unit.is_active()
    if not active or anew:
        verb = "restart" if active else "start"
        environment.note(f"{verb}ing {unit.NAME}")
        unit.call(verb)


def _tell(environment: Environment, wish: Wish, managed: bool) -> None:
    """What serves now, or how to make it; and what comes next."""
    from marchproxy.client.control import Control

    note = environment.note
    try:
        status = Control(environment).get("/v1/status")
    except DaemonNotRunning:
        note(f"now start it: {_command(environment, wish.ports, managed)}")
    else:
        tier = status["tier"]
        note(f"the gateway runs: {tier['name']} tier, revision {status['revision']['number']}")
        if tier["name"] == "sockets":
            note(f"! listeners only, nothing that is routed is carried or denied: {tier['reason']}")
        for problem in status["problems"]:
            note(f"! {problem}")
    note("then see what would be denied: marchproxy flows --denied --follow")
    note("allow what should be: marchproxy learn propose -o learned.yaml && marchproxy apply -f learned.yaml")
    note("and deny the rest: marchproxy appliance set --audit off")


def _command(environment: Environment, ports: tuple[int, ...], managed: bool) -> str:
    if managed:
        return f"systemctl start {unit.NAME}"
    if ports == tuple(sorted(environment.management_ports)):
        return "marchproxy run"
    return f"{VARIABLE}={','.join(map(str, ports))} marchproxy run"
