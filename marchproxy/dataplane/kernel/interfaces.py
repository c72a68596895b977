"""Programs on the interfaces of the plan, kept there while interfaces come and go."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.driver import choose_mode
from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.links import LinkKind, attach_tc, attach_xdp, open_link
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.dataplane.records import InterfaceState
from marchproxy.model.entities import Interface, Mode
from marchproxy.model.errors import MarchproxyError


@dataclass(frozen=True, slots=True)
class Programs:
    """The pipeline for each tier."""

    tc: Program
    xdp: Program


@dataclass(slots=True)
class _Attached:
    """What is known of one interface of the plan."""

    interface: Interface
    ifindex: int = 0
    """0: not attached."""
    kinds: list[str] = field(default_factory=list)
    problem: str = ""

    def state(self) -> InterfaceState:
        mode = choose_mode(self.interface.name, self.interface.mode) if self.ifindex else self.interface.mode
        return InterfaceState(
            self.interface.name, self.interface.role, str(mode), "+".join(self.kinds), self.problem
        )


class Attachments:
    """Attaches to the interfaces it is told, by links pinned in `links`, and re-attaches to one that vanished and returned."""

    def __init__(self, programs: Programs, native: Map, links: Path, forwarding: Forwarding) -> None:
        self._programs = programs
        self._native = native
        self._links = links
        self._forwarding = forwarding
        self._attached: dict[str, _Attached] = {}

    def want(self, interfaces: Sequence[Interface]) -> None:
        """Attach to exactly these. An interface that does not exist (yet) is a problem in its state, not an error."""
        wanted = {interface.name: interface for interface in interfaces}
        for name in self._attached.keys() - wanted.keys():
            self._forget(name)
        self._remove_unwanted_pins(wanted)
        for name, interface in wanted.items():
            known = self._attached.get(name)
            if known is None or known.interface != interface:
                self._attached[name] = _Attached(interface)
        self.look_after()

    def look_after(self) -> None:
        """Attach what is there and not attached; notice what has gone."""
        for each in self._attached.values():
            try:
                ifindex = socket.if_nametoindex(each.interface.name)
            except OSError:
                each.ifindex, each.kinds = 0, []
                each.problem = "no such interface"
                continue
            if ifindex != each.ifindex:
                self._attach(each, ifindex)
            elif each.problem or not self._forwarding.is_on(each.interface.name):
                self._attach(each, ifindex)

    def states(self) -> list[InterfaceState]:
        """As found last."""
        return [each.state() for each in self._attached.values()]

    def _attach(self, each: _Attached, ifindex: int) -> None:
        name = each.interface.name
        mode = choose_mode(name, each.interface.mode)
        each.kinds, each.problem, each.ifindex = [], "", 0
        try:
            self._forwarding.enable(name)
            tc = attach_tc(self._programs.tc, ifindex, pin=self._pin(name, "tc"))
            each.kinds = ["clsact" if tc.info().kind is LinkKind.CLSACT else "tc"]
            tc.close()
            native = mode is Mode.XDP
            if mode in (Mode.XDP, Mode.XDP_GENERIC):
                xdp = attach_xdp(self._programs.xdp, ifindex, generic=not native, pin=self._pin(name, "xdp"))
                xdp.close()
                each.kinds.insert(0, str(mode))
            else:
                self._detach(self._pin(name, "xdp"))
            self._native.set(layouts.U32.pack(ifindex), layouts.INTERFACE.struct.pack(native))
            each.ifindex = ifindex
        except MarchproxyError as error:
            each.problem = error.message

    def _forget(self, name: str) -> None:
        each = self._attached.pop(name)
        if each.ifindex:
            self._native.delete(layouts.U32.pack(each.ifindex))
        for program in ("xdp", "tc"):
            self._detach(self._pin(name, program))

    def _remove_unwanted_pins(self, wanted: Mapping[str, Interface]) -> None:
        """Links that an earlier daemon left on interfaces that are no longer meant."""
        keep = {self._pin(name, program) for name in wanted for program in ("xdp", "tc")}
        for pin in list(self._links.iterdir()) if self._links.exists() else []:
            if pin not in keep:
                self._detach(pin)

    def _pin(self, interface: str, program: str) -> Path:
        """bpffs allows no dot in a name, interface names do (`eth0.10`); '%' is neither reserved nor usual."""
        return self._links / f"{program}-{interface.replace('.', '%')}"

    @staticmethod
    def _detach(pin: Path) -> None:
        if pin.exists():
            detach_pin(pin)


def detach_pin(pin: Path) -> None:
    """Take a pinned link off its interface; one that leads nowhere any more is only unpinned."""
    try:
        open_link(pin).detach()
    except KernelError:
        pin.unlink(missing_ok=True)
