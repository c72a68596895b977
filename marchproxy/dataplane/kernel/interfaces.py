"""Programs on the interfaces of the plan, kept there while interfaces come and go."""

import contextlib
import fcntl
import math
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.driver import choose_mode
from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.links import LinkKind, attach_tc, attach_xdp, open_link
from marchproxy.dataplane.kernel.loading import Programs
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.records import InterfaceState
from marchproxy.model.entities import Interface, Mode, Role
from marchproxy.model.errors import MarchproxyError

AGAIN = 5.0
"""Seconds between two looks at whether the programs are still there, and two tries where attaching failed.

Some drivers restart their queues at every try."""
_SIOCGIFHWADDR, _IFREQ_SIZE, _ETHERNET = 0x8927, 40, 1
"""ioctl, size of its `struct ifreq`, and the kind of link (ARPHRD_ETHER) whose addresses have six bytes."""
_ROLES = {Role.INSIDE: layouts.ROLE_INSIDE, Role.OUTSIDE: layouts.ROLE_OUTSIDE}
_NAMES = {LinkKind.TCX: "tc", LinkKind.CLSACT: "clsact"}


@dataclass(slots=True)
class _Watched:
    """An interface of the plan, and what was found or done last."""

    interface: Interface
    ifindex: int = 0
    """0: not there."""
    attached: str = ""
    native: bool = False
    """Whether it takes frames that XDP redirects to it."""
    problem: str = ""
    tried: float = -math.inf

    def state(self) -> InterfaceState:
        interface = self.interface
        return InterfaceState(
            interface.name, interface.role, str(interface.mode), self.attached, self.problem
        )


class Attachments:
    """Attaches to the interfaces it is told, by links pinned in `links`.

    `known` is the programs' map of interfaces; `routes_changed` makes flows look their way out up again.
    """

    def __init__(
        self,
        programs: Programs,
        known: Map,
        links: Path,
        forwarding: Forwarding,
        routes_changed: Callable[[], None],
    ) -> None:
        self._programs = programs
        self._known = known
        self._links = links
        self._forwarding = forwarding
        self._routes_changed = routes_changed
        self._watched: dict[str, _Watched] = {}
        self._told: dict[int, bytes] | None = None
        self.states: tuple[InterfaceState, ...] = ()
        """As found last. Replaced as a whole, so that any thread may read it."""

    def want(self, interfaces: Sequence[Interface]) -> None:
        """Be on exactly these. One that does not exist (yet) is a problem in its state, not an error."""
        held = self._watched
        self._watched = {
            wanted.name: held[wanted.name]
            if wanted.name in held and held[wanted.name].interface == wanted
            else _Watched(wanted)
            for wanted in interfaces
        }
        self._leave_others()
        self.look_after()

    def retry(self) -> None:
        """What was in the way is gone: attach at once to what is a problem."""
        for each in self._watched.values():
            if each.problem:
                each.tried = -math.inf
        self.look_after()

    def due(self) -> bool:
        """Whether it is time to look again, though nothing was heard of."""
        now = time.monotonic()
        return any(now - each.tried > AGAIN for each in self._watched.values())

    def look_after(self) -> None:
        """Attach to what is new or came back at once, and see every few seconds to what is attached."""
        for each in self._watched.values():
            try:
                self._look_after(each)
            except MarchproxyError as error:
                # Without what a verifier says, which is in the log.
                each.problem = error.message.partition("\n")[0]
        self._tell()
        self.states = tuple(each.state() for each in self._watched.values())

    def _look_after(self, each: _Watched) -> None:
        ifindex, now = index_of(each.interface.name), time.monotonic()
        if ifindex != each.ifindex:
            each.ifindex, each.attached, each.native, each.tried = ifindex, "", False, -math.inf
        if not ifindex:
            each.tried = now
            each.problem = "no such interface"
        elif now - each.tried > AGAIN:
            each.tried = now
            self._attach(each)
            each.problem = ""
        elif not each.problem:
            # Somebody may have switched it off behind us.
            self._forwarding.enable(each.interface.name)

    def _attach(self, each: _Watched) -> None:
        """Attach, or adopt what is attached already, which changes nothing if it is the same program."""
        name, mode = each.interface.name, choose_mode(each.interface.name, each.interface.mode)
        self._forwarding.enable(name)
        with contextlib.closing(attach_tc(self._programs.tc, each.ifindex, pin=self._pin(name, "tc"))) as tc:
            each.attached = _NAMES.get(tc.info().kind, "")
        pin = self._pin(name, "xdp")
        if mode is Mode.TC:
            detach_pin(pin)
            return
        generic = mode is Mode.XDP_GENERIC
        attach_xdp(self._programs.xdp, each.ifindex, generic=generic, pin=pin).close()
        each.attached, each.native = str(mode), not generic

    def _tell(self) -> None:
        """Tell the programs each interface's link address and side, and whether it takes bare frames."""
        wanted = {
            each.ifindex: layouts.INTERFACE.struct.pack(
                link_address(each.interface.name), each.native, _ROLES[each.interface.role]
            )
            for each in self._watched.values()
            if 0 < each.ifindex < self._known.max_entries
        }
        if wanted == self._told:
            return
        nothing = bytes(layouts.INTERFACE.size)
        if self._told is None:
            # An earlier daemon's.
            items = self._known.items()
            self._told = {layouts.U32.unpack(key)[0]: value for key, value in items if value != nothing}
        entries = dict.fromkeys(self._told, nothing) | wanted
        self._known.update_many([(layouts.U32.pack(ifindex), value) for ifindex, value in entries.items()])
        self._routes_changed()
        self._told = wanted

    def _leave_others(self) -> None:
        """Take programs off interfaces that are no longer meant, those of an earlier daemon included."""
        # First, so that no flow is still sent as a bare frame to where XDP goes away.
        self._tell()
        keep = {self._pin(name, program) for name in self._watched for program in ("xdp", "tc")}
        for pin in list(self._links.iterdir()) if self._links.is_dir() else []:
            if pin not in keep:
                detach_pin(pin)

    def _pin(self, interface: str, program: str) -> Path:
        """A BPF file system allows no dot in a name, as `eth0.10` has; no interface can have a '%'."""
        return self._links / f"{program}-{interface.replace('.', '%')}"


def pinned_interface(pin: Path) -> str:
    """`xdp program on eth0.10`, of the pin of a link."""
    program, _, interface = pin.name.partition("-")
    return f"{program} program on {interface.replace('%', '.')}"


def detach_pin(pin: Path) -> None:
    """Take a pinned link off its interface; one that leads nowhere any more is only unpinned."""
    if not pin.exists():
        return
    with contextlib.suppress(KernelError):
        link = open_link(pin)
        try:
            link.detach()
        finally:
            link.close()
    # What is left: the last reference, without which the kernel takes a link off by itself.
    if pin.is_dir():
        shutil.rmtree(pin)
    else:
        pin.unlink(missing_ok=True)


def link_address(interface: str) -> bytes:
    """Six bytes: Ethernet's, or zeros, to which no frame is addressed, of an interface without."""
    request = interface.encode()[:15].ljust(_IFREQ_SIZE, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control.fileno(), _SIOCGIFHWADDR, request)
        except OSError:
            return bytes(6)
    kind = int.from_bytes(answer[16:18], sys.byteorder)
    return answer[18:24] if kind == _ETHERNET else bytes(6)


def index_of(interface: str) -> int:
    """0 where there is no such interface in this network namespace."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
