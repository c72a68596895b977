"""interfaces: programs are where the plan wants them, whatever happens to the interfaces."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import interfaces, layouts
from marchproxy.dataplane.kernel.errors import KernelError, ProgramRejected
from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.interfaces import Attachments
from marchproxy.dataplane.kernel.links import LinkKind, attach_xdp, link_info, open_link
from marchproxy.dataplane.kernel.loading import Programs
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.dataplane.records import InterfaceState
from marchproxy.model.entities import Interface, Mode, Role
from tests.dataplane.kernel.support import Wire, ip

pytestmark = pytest.mark.requires(
    "root", "bpf", "bpffs", "ringbuf", "netns", "veth", "xdp", "xdp-native", "tcx", "ipv6"
)


@pytest.fixture(scope="module")
def objects() -> Iterator[dict[str, BpfObject]]:
    with BpfObject.load(bpf.OBJECTS / "tc.bpf.o") as tc, BpfObject.load(bpf.OBJECTS / "xdp.bpf.o") as xdp:
        yield {"tc": tc, "xdp": xdp}


@pytest.fixture
def programs(objects: dict[str, BpfObject]) -> Programs:
    return Programs(
        objects["tc"].programs["marchproxy_tc"], lambda: objects["xdp"].programs["marchproxy_xdp"]
    )


@pytest.fixture
def known(objects: dict[str, BpfObject]) -> Map:
    """The programs' map of interfaces, empty."""
    made = objects["tc"].maps["interfaces"]
    nothing = bytes(layouts.INTERFACE.size)
    made.update_many([(key, nothing) for key, value in made.items() if value != nothing])
    return made


class Daemon:
    """Attachments of one daemon after the other over the same pins."""

    def __init__(self, programs: Programs, known: Map, links: Path, sysctls: Sysctls) -> None:
        self.programs, self.known, self.links, self.sysctls = programs, known, links, sysctls
        self.epochs = 0
        self.restart()

    def restart(self) -> None:
        self.attachments = Attachments(
            self.programs, self.known, self.links, Forwarding(self.sysctls), self._routes_changed
        )

    def want(self, *wanted: Interface) -> InterfaceState | None:
        """The state of the first."""
        self.attachments.want(wanted)
        return self.state()

    def poll(self) -> InterfaceState | None:
        self.attachments.look_after()
        return self.state()

    def state(self) -> InterfaceState | None:
        return self.attachments.states[0] if self.attachments.states else None

    def attached(self, name: str = "near0") -> dict[str, LinkKind]:
        """By the kernel's word: what is pinned and really on the interface."""
        ifindex = socket.if_nametoindex(name)
        infos = {
            pin.name.partition("-")[0]: link_info(pin)
            for pin in self.links.glob(f"*-{name.replace('.', '%')}")
        }
        return {
            program: info.kind for program, info in infos.items() if info.attached and info.ifindex == ifindex
        }

    def told(self) -> dict[int, bytes]:
        """Interfaces and their link addresses, as the programs know them."""
        return {ifindex: address for ifindex, (address, *_) in self._entries() if any(address)}

    def natives(self) -> set[int]:
        """Interfaces that take bare frames."""
        return {ifindex for ifindex, (_, native, _) in self._entries() if native}

    def _entries(self) -> Iterator[tuple[int, tuple[bytes, int, int]]]:
        for key, value in self.known.items():
            yield layouts.U32.unpack(key)[0], layouts.INTERFACE.struct.unpack(value)

    def _routes_changed(self) -> None:
        self.epochs += 1


@pytest.fixture
def daemon(wire: Wire, programs: Programs, known: Map, bpffs: Path, tmp_path: Path) -> Daemon:
    return Daemon(programs, known, bpffs / "links", Sysctls(tmp_path / "sysctls.json"))


def near(mode: Mode = Mode.AUTO, name: str = "near0") -> Interface:
    return Interface(name, Role.INSIDE, mode)


def test_what_the_plan_wants(daemon: Daemon) -> None:
    assert daemon.want(near()) == InterfaceState("near0", Role.INSIDE, "auto", "tc")
    assert daemon.attached() == {"tc": LinkKind.TCX}
    assert daemon.sysctls.read("net/ipv4/conf/near0/forwarding") == "1"


MODES = {
    Mode.TC: {"tc": LinkKind.TCX},
    Mode.XDP: {"tc": LinkKind.TCX, "xdp": LinkKind.XDP},
    Mode.XDP_GENERIC: {"tc": LinkKind.TCX, "xdp": LinkKind.XDP_GENERIC},
}


@pytest.mark.parametrize(
    "modes",
    [
        (Mode.TC, Mode.XDP, Mode.XDP_GENERIC, Mode.TC),
        (Mode.XDP, Mode.TC, Mode.XDP_GENERIC, Mode.XDP),
    ],
)
def test_modes_change_on_a_live_interface(daemon: Daemon, wire: Wire, modes: tuple[Mode, ...]) -> None:
    for mode in modes:
        state = daemon.want(near(mode))
        assert state == InterfaceState("near0", Role.INSIDE, str(mode), str(mode))
        assert daemon.attached() == MODES[mode]
        assert daemon.natives() == ({wire.ifindex} if mode is Mode.XDP else set())


def test_flows_look_their_way_out_up_again_before_xdp_goes(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.want(near(Mode.XDP))
    epochs = daemon.epochs
    order: list[str] = []
    detach = interfaces.detach_pin

    def noting(pin: Path) -> None:
        if pin.exists():
            order.append(
                f"{daemon.natives() or 'no'} native, {daemon.epochs - epochs} epoch later, {pin.name} goes"
            )
        detach(pin)

    monkeypatch.setattr(interfaces, "detach_pin", noting)
    daemon.want(near(Mode.TC))
    assert order == ["no native, 1 epoch later, xdp-near0 goes"]


def test_the_programs_know_link_addresses(daemon: Daemon, wire: Wire) -> None:
    address = bytes.fromhex("020000000042")
    ip("link", "set", wire.near, "address", address.hex(":"))
    daemon.want(near())
    assert daemon.told() == {wire.ifindex: address}
    other = bytes.fromhex("020000000043")
    ip("link", "set", wire.near, "address", other.hex(":"))
    daemon.poll()
    assert daemon.told() == {wire.ifindex: other}
    daemon.want()
    assert daemon.told() == {}


def test_link_addresses(wire: Wire) -> None:
    ip("link", "set", wire.near, "address", "02:00:00:00:00:42")
    assert interfaces.link_address(wire.near) == bytes.fromhex("020000000042")
    assert interfaces.link_address("lo") == bytes(6)
    assert interfaces.link_address("nowhere0") == bytes(6)


def test_a_quiet_poll_changes_nothing(daemon: Daemon) -> None:
    daemon.want(near(Mode.XDP))
    epochs, states = daemon.epochs, daemon.attachments.states
    daemon.poll()
    assert (daemon.epochs, daemon.attachments.states) == (epochs, states)


def test_there_is_something_to_look_at_every_few_seconds(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not daemon.attachments.due()
    daemon.want(near(), near(name="nowhere0"))
    assert not daemon.attachments.due()
    monkeypatch.setattr(interfaces, "AGAIN", 0.0)
    assert daemon.attachments.due()
    daemon.poll()
    monkeypatch.setattr(interfaces, "AGAIN", 60.0)
    assert not daemon.attachments.due()


def test_a_successor_adopts_what_is_there(daemon: Daemon) -> None:
    daemon.want(near(Mode.XDP))
    daemon.restart()
    assert daemon.attached() == MODES[Mode.XDP]
    state = daemon.want(near(Mode.XDP))
    assert state is not None
    assert (state.attached, state.problem) == ("xdp", "")
    assert daemon.attached() == MODES[Mode.XDP]


def test_a_successor_takes_off_what_is_no_longer_meant(daemon: Daemon) -> None:
    daemon.want(near(Mode.XDP))
    daemon.restart()
    daemon.want()
    assert daemon.attached() == {}
    assert daemon.natives() == set()
    assert list(daemon.links.iterdir()) == []


def test_an_interface_that_comes_back_is_attached_by_the_next_poll(daemon: Daemon, wire: Wire) -> None:
    daemon.want(near(Mode.XDP))
    gone = wire.ifindex
    wire.cut()
    state = daemon.poll()
    assert state is not None
    assert (state.attached, state.problem) == ("", "no such interface")
    assert daemon.natives() == set()
    wire.lay()
    assert wire.ifindex != gone
    state = daemon.poll()
    assert state is not None
    assert (state.attached, state.problem) == ("xdp", "")
    assert daemon.attached() == MODES[Mode.XDP]
    assert daemon.natives() == {wire.ifindex}
    assert daemon.sysctls.read("net/ipv6/conf/near0/forwarding") == "1"


def test_one_that_came_back_between_two_polls(daemon: Daemon, wire: Wire) -> None:
    daemon.want(near())
    wire.cut()
    wire.lay()
    daemon.poll()
    assert daemon.attached() == MODES[Mode.TC]


def test_an_interface_that_is_not_there_yet(daemon: Daemon) -> None:
    state = daemon.want(near(name="late0"))
    assert state is not None
    assert state.problem == "no such interface"
    Wire("late0", "late1").lay()
    state = daemon.poll()
    assert state is not None
    assert (state.attached, state.problem) == ("tc", "")


def test_names_with_dots(daemon: Daemon, wire: Wire) -> None:
    ip("link", "set", wire.near, "down")
    ip("link", "set", wire.near, "name", "near.10")
    daemon.want(near(Mode.XDP, "near.10"))
    assert daemon.attached("near.10") == MODES[Mode.XDP]
    pins = sorted(daemon.links.iterdir())
    assert [interfaces.pinned_interface(pin) for pin in pins] == [
        "tc program on near.10",
        "xdp program on near.10",
    ]
    daemon.restart()
    daemon.want()
    assert list(daemon.links.iterdir()) == []


def test_what_somebody_else_took_off_is_put_back(
    daemon: Daemon, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.want(near())
    open_link(daemon.links / "tc-near0").detach()
    assert daemon.attached() == {}
    daemon.poll()
    assert daemon.attached() == {}, "looked at every few seconds, not at every poll"
    monkeypatch.setattr(interfaces, "AGAIN", 0.0)
    daemon.poll()
    assert daemon.attached() == MODES[Mode.TC]


def test_forwarding_that_somebody_switched_off_is_on_after_the_next_poll(daemon: Daemon) -> None:
    daemon.want(near())
    for version in (4, 6):
        Path(f"/proc/sys/net/ipv{version}/conf/near0/forwarding").write_text("0")
    daemon.poll()
    assert [daemon.sysctls.read(f"net/ipv{version}/conf/near0/forwarding") for version in (4, 6)] == [
        "1",
        "1",
    ]


def test_a_driver_without_native_xdp_is_carried_by_tc_and_says_so(daemon: Daemon) -> None:
    state = daemon.want(Interface("lo", Role.INSIDE, Mode.XDP))
    assert state is not None
    assert state.attached == "tc"
    assert "does not take a native XDP program" in state.problem
    assert daemon.natives() == set()


def test_a_conflict_is_tried_again_and_ends(
    daemon: Daemon, wire: Wire, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = attach_xdp(programs.xdp, wire.ifindex, generic=False)
    state = daemon.want(near(Mode.XDP))
    assert state is not None
    assert "carries another XDP program already" in state.problem
    assert state.attached == "tc"
    theirs.close()
    state = daemon.poll()
    assert state is not None
    assert state.problem, "not at every poll"
    monkeypatch.setattr(interfaces, "AGAIN", 0.0)
    state = daemon.poll()
    assert state is not None
    assert (state.attached, state.problem) == ("xdp", "")
    assert daemon.natives() == {wire.ifindex}


def test_several_interfaces_and_one_less(daemon: Daemon, wire: Wire) -> None:
    other = Wire("near1", "far1")
    other.lay()
    daemon.want(near(Mode.XDP), near(Mode.XDP, "near1"))
    assert daemon.natives() == {wire.ifindex, other.ifindex}
    daemon.want(near(Mode.XDP, "near1"))
    assert daemon.attached("near0") == {}
    assert daemon.attached("near1") == MODES[Mode.XDP]
    assert daemon.natives() == {other.ifindex}


def test_states_are_replaced_as_a_whole(daemon: Daemon) -> None:
    """Another thread may be reading them."""
    daemon.want(near())
    before = daemon.attachments.states
    daemon.want()
    assert len(before) == 1
    assert daemon.attachments.states == ()


def test_a_broken_xdp_program_is_a_problem_of_its_interface(daemon: Daemon, programs: Programs) -> None:
    def refuse() -> Program:
        raise KernelError("the verifier rejected program 'marchproxy_xdp'")

    daemon.programs = Programs(programs.tc, refuse)
    daemon.restart()
    state = daemon.want(near(Mode.XDP))
    assert state is not None
    assert (state.attached, state.problem) == ("tc", "the verifier rejected program 'marchproxy_xdp'")


def test_a_verifier_that_refuses_xdp_is_asked_once_and_tc_carries(
    daemon: Daemon,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Verifying takes a while, and a kernel that refused will again, however often the driver is tried."""
    asked = []

    def refuse() -> Program:
        asked.append(1)
        raise ProgramRejected("marchproxy_xdp", errno=22, log="5297: a line\nback-edge\n")

    monkeypatch.setattr(interfaces, "AGAIN", 0.0)
    daemon.programs = Programs(programs.tc, refuse)
    daemon.restart()
    for state in (daemon.want(near(Mode.XDP)), daemon.poll(), daemon.poll()):
        assert state
        assert state.problem == "the verifier rejected program 'marchproxy_xdp': Invalid argument (EINVAL)"
        assert state.attached == "tc"
    assert len(asked) == 1
    assert "back-edge" in caplog.text
