"""Loading the pipeline: its programs over one set of pinned maps, or a clear word why not."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from marchproxy import bpf
from marchproxy.dataplane.kernel import features, inheritance
from marchproxy.dataplane.kernel.errors import (
    KernelError,
    LibbpfMissing,
    MapLayoutChanged,
    NotPermitted,
    NotSupported,
    ObjectInvalid,
    ProgramRejected,
)
from marchproxy.dataplane.kernel.libbpf import library
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.objects import BpfObject, ObjectFile, open_pinned_map
from marchproxy.dataplane.kernel.pins import lock_directory, make_pin_directory
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.model.appliance import DEFAULT_SETTINGS

log = logging.getLogger(__name__)

READ_OR_WRITTEN = frozenset(
    {
        *(
            "active",
            "address_classes",
            "backends",
            "class_lines",
            "class_pages",
            "listeners",
            "pools",
            "port_classes",
            "quic_homes",
            "quic_offers",
            "rules",
        ),
        *("source_bits", "transit_bits", "transit_digests", "transit_extents", "transit_rules", "nat_pools"),
        *("flows", "opening", "beginnings", "splices", "tunnels", "mapping_names", "settings", "management"),
        *("interfaces", "own_addresses"),
        *("limits", "limit_sets", "limit_prefixes", "limit_generations", "limit_buckets"),
        *("limit_counters", "limit_names"),
        "divert_sockets",
        *("counters", "denied", "repeats", "events", "lost_events", "blocks"),
        *("capture_filter", "capture_prefixes", "capture_spent", "captured"),
    }
)
"""The maps that user space uses; the programs keep some for themselves."""


PRIVATE = {
    "flows": 64,
    "opening": 64,
    "beginnings": 0,
    "splices": 1,
    "tunnels": 1,
    "fragments": 64,
    "quic_homes": 64,
    "quic_offers": 64,
    "limit_buckets": 0,
    "limited": 64,
    "limit_counters": 0,
    "limit_names": 0,
    "transit_state": 0,
    "clean_pairs": 0,
    "host_places": 0,
    "block_reports": 0,
    "counters": 0,
    "refusals": 0,
    "denied": 64,
    "repeats": 64,
    "denied_events": 0,
    "lost_events": 0,
    "events": 4096,
    "mapping_names": 1,
    "scratch": 0,
    "capture_filter": 0,
    "capture_spent": 0,
    "captured": 0,
}
"""What a program that is only asked has for itself: all that programs write. With how many entries; 0: as
many as ever."""


class BpfNotPermitted(NotPermitted):
    """This process may not use BPF, or this machine cannot; the message says which and why.

    Another tier can do the work. All other errors of loading have to be put right by somebody.
    """


@dataclass(frozen=True, slots=True)
class HandoffPrograms:
    """What handing connections off asks the kernel (`bpf/handoff.bpf.c`): run, and attached nowhere."""

    socket: Program
    amend: Program

    def close(self) -> None:
        """Let go."""
        self.socket.close()
        self.amend.close()


class Programs:
    """The pipeline for each tier."""

    def __init__(self, tc: Program, load_xdp: Callable[[], Program]) -> None:
        self.tc = tc
        self._load_xdp = load_xdp
        self._xdp: Program | None = None
        self._refused: ProgramRejected | None = None

    @property
    def xdp(self) -> Program:
        """Loaded at first use, since most machines have none: verifying it would double the time to start.

        Raises as `load_pipeline`; a verifier that has refused it is not asked again.
        """
        if self._refused:
            raise self._refused.with_traceback(None)
        if self._xdp is None:
            try:
                self._xdp = self._load_xdp()
            except ProgramRejected as refused:
                self._refused = refused
                log.warning("carried by TC, not XDP: %s", refused.message)
                raise
        return self._xdp

    def close(self) -> None:
        """Let go; what is attached stays."""
        self.tc.close()
        if self._xdp:
            self._xdp.close()


@dataclass(frozen=True, slots=True)
class RehearsalProgram:
    """The pipeline once more, over the policy in force and tables of its own; attached nowhere."""

    tc: Program
    maps: Mapping[str, Map]
    """Its own: flows, counters and the like."""

    def close(self) -> None:
        """Let go; nothing is left of it."""
        self.tc.close()
        for each in self.maps.values():
            each.close()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The programs in the kernel, and the maps they share with us alone."""

    maps: Mapping[str, Map]
    programs: Programs
    load_handoff: Callable[[], HandoffPrograms]
    """For who hands connections off; they want a kernel with type information (BTF), which the pipeline does
    not. Raises as `load_pipeline`."""
    load_rehearsal: Callable[[], RehearsalProgram]
    """To be asked what the programs would do. Raises as `load_pipeline`."""
    settle: Callable[[], None]
    """To be called when these programs are the attached ones: see `inheritance`. May be repeated."""
    lock: ExitStack
    """Held on the folder of the pins."""

    def close(self) -> None:
        """Let go; what is pinned or attached stays. May be repeated."""
        for each in self.maps.values():
            each.close()
        self.programs.close()
        self.lock.close()


def load_pipeline(
    pins: Path, objects: Path = bpf.OBJECTS, *, flow_table: int = DEFAULT_SETTINGS.flow_table
) -> Pipeline:
    """Load the programs in `objects`, taking over the maps pinned in `pins`, or pinning new ones there.

    A new table of flows gets `flow_table` entries; one that is pinned keeps its size, and its flows. Copying
    them would lose what the programs in the kernel count and open meanwhile.

    All objects are read here, those too that are loaded later: an upgrade may replace the files meanwhile.

    Raises `BpfNotPermitted`, `Conflict` beside another daemon, or another `KernelError`: no BPF file system,
    an object that is missing or broken, maps of another version. A call that fails leaves nothing behind.
    """
    tc_file, xdp_file, handoff_file = (
        ObjectFile(objects / f"{name}.bpf.o") for name in ("tc", "xdp", "handoff")
    )
    with _explained(), ExitStack() as lock:
        _expect_bpf()
        inheritance.put_aside(pins)
        make_pin_directory(pins)
        lock.callback(os.close, lock_directory(pins))
        held = (_pinned_size(pin) for pin in (pins / "flows", inheritance.aside(pins, "flows")))
        sizes = {"flows": next(filter(None, held), flow_table)}
        with (
            _nothing_left_by_failure(pins),
            BpfObject.load(tc_file, pin_dir=pins, max_entries=sizes) as loaded,
        ):
            tc = _take_program(loaded, "marchproxy_tc")
            settle = inheritance.copy_flows(pins)
            # What is not taken out of the object is closed with it.
            maps = {name: loaded.maps.pop(name) for name in sorted(READ_OR_WRITTEN)}
        programs = Programs(tc, lambda: _load_xdp(pins, xdp_file, sizes))
        return Pipeline(
            maps,
            programs,
            lambda: _load_handoff(pins, handoff_file, sizes),
            lambda: _load_rehearsal(pins, tc_file),
            settle,
            lock.pop_all(),
        )


def _pinned_size(pin: Path) -> int:
    """How many entries the map holds that is pinned there; 0: none is."""
    if not pin.exists():
        return 0
    with open_pinned_map(pin) as existing:
        return existing.max_entries


def _load_xdp(pins: Path, source: ObjectFile, sizes: Mapping[str, int]) -> Program:
    with _explained(), BpfObject.load(source, pin_dir=pins, max_entries=sizes) as loaded:
        return _take_program(loaded, "marchproxy_xdp")


def _load_handoff(pins: Path, source: ObjectFile, sizes: Mapping[str, int]) -> HandoffPrograms:
    with _explained(), BpfObject.load(source, pin_dir=pins, max_entries=sizes) as loaded:
        return HandoffPrograms(
            _take_program(loaded, "marchproxy_socket"), _take_program(loaded, "marchproxy_amend")
        )


def _load_rehearsal(pins: Path, source: ObjectFile) -> RehearsalProgram:
    shared = {path.name for path in pins.iterdir() if path.is_file()} - PRIVATE.keys()
    sizes = {name: size for name, size in PRIVATE.items() if size}
    with (
        _explained(),
        BpfObject.load(
            source,
            pin_dir=pins,
            pinned_maps=shared,
            max_entries=sizes,
            rodata={"balance_rehearses": b"\1"},
        ) as loaded,
    ):
        tc = _take_program(loaded, "marchproxy_tc")
        return RehearsalProgram(tc, {name: loaded.maps.pop(name) for name in PRIVATE})


def _take_program(loaded: BpfObject, name: str) -> Program:
    missing = READ_OR_WRITTEN - loaded.maps.keys() | {name} - loaded.programs.keys()
    if missing:
        raise ObjectInvalid(
            f"the BPF object {loaded.name} lacks {', '.join(sorted(missing))}",
            hint="it is of another version: install MarchProxy again, or make bpf in a checkout",
        )
    return loaded.programs.pop(name)


@contextmanager
def _explained() -> Iterator[None]:
    """Say what an operator can do, and which errors another tier helps against."""
    try:
        yield
    except MapLayoutChanged as error:
        hint = "run: marchproxy detach (this ends all flows), then start again"
        raise KernelError(error.message, hint=hint) from error
    except (LibbpfMissing, NotPermitted, NotSupported) as error:
        raise BpfNotPermitted(error.message, hint=error.hint, errno=error.errno, log=error.log) from error


def _expect_bpf() -> None:
    """Ask first: what a kernel that lacks something says to a whole pipeline explains nothing."""
    library()
    if lacking := features.lacking():
        raise BpfNotPermitted(lacking)


@contextmanager
def _nothing_left_by_failure(pins: Path) -> Iterator[None]:
    """Unpin what was pinned meanwhile: maps that nobody uses would hold their memory until the next boot."""
    before = set(pins.iterdir())
    try:
        yield
    except BaseException:
        for path in set(pins.iterdir()) - before:
            path.unlink()
        for folder in (pins, pins.parent):
            with suppress(OSError):
                folder.rmdir()
        raise
