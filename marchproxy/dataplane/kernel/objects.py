"""Compiled BPF objects: opened, configured, loaded into the kernel, and there turned into maps and programs.

libbpf's own view of an object (its ELF file, its BTF, several hundred kilobytes) lives only inside
`BpfObject.load`. What comes out holds file descriptors of its own, and nothing else.
"""

import ctypes as ct
import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from marchproxy.dataplane.kernel import pins
from marchproxy.dataplane.kernel.errors import (
    KernelError,
    MapLayoutChanged,
    ObjectInvalid,
    ProgramRejected,
    refusal,
)
from marchproxy.dataplane.kernel.libbpf import ObjectOpenOptions, captured_log, library
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.maptypes import MapType
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.dataplane.kernel.rodata import SECTION, write_constants

_RDONLY_PROG = 1 << 7
"""BPF_F_RDONLY_PROG, which the kernel adds to the flags of every device map by itself."""

TRIES = 10
"""Loads of one object. The kernel breaks off with EAGAIN where a signal comes while it looks at a program, as
when a process stands still and goes on; libbpf begins anew five times by itself, and then gives up."""

_NO_SIZES: Mapping[str, int] = MappingProxyType({})
_NO_CONSTANTS: Mapping[str, bytes] = MappingProxyType({})


class ObjectFile:
    """A compiled object as it is at this moment: an upgrade replaces files below a daemon that runs."""

    def __init__(self, path: Path) -> None:
        """Read it. That it cannot be read is said to who asks for `image`."""
        self.name = path.name.partition(".")[0]
        """For messages and the kernel, which allows no punctuation in it."""
        self._image: bytes | ObjectInvalid
        try:
            self._image = path.read_bytes()
        except OSError as problem:
            self._image = ObjectInvalid(
                f"cannot read the BPF object {path}: {problem.strerror}",
                hint="it is made when MarchProxy is built or installed",
                errno=problem.errno or 0,
            )

    @property
    def image(self) -> bytes:
        """Its bytes. Raises `ObjectInvalid`."""
        if isinstance(self._image, ObjectInvalid):
            raise self._image
        return self._image


class BpfObject:
    """Maps and programs of an object by their names in C; a section of variables is a map, as `.rodata`."""

    __slots__ = ("maps", "name", "programs")

    def __init__(self, name: str, maps: dict[str, Map], programs: dict[str, Program]) -> None:
        self.name = name
        self.maps = maps
        self.programs = programs

    @classmethod
    def load(
        cls,
        source: ObjectFile | Path | bytes,
        *,
        pin_dir: Path | None = None,
        pinned_maps: Collection[str] | None = None,
        max_entries: Mapping[str, int] = _NO_SIZES,
        rodata: Mapping[str, bytes] = _NO_CONSTANTS,
    ) -> Self:
        """Load an object: read before, at a path, or given as its bytes.

        With `pin_dir`, the maps named in `pinned_maps` (None: all that are not sections of variables) are
        pinned there under their names; a pin that exists is used instead of a new map. `max_entries` resizes
        maps, `rodata` sets constants. Declarations of pinning inside the object are ignored: the caller says
        what is pinned.

        ObjectInvalid, MapLayoutChanged, PinFailed, ProgramRejected, NotPermitted, or another KernelError.
        Maps that were pinned by a failed call are unpinned again.
        """
        name, image = _read(source)
        for left in reversed(range(TRIES)):
            try:
                return cls._load(name, image, pin_dir, pinned_maps, max_entries, rodata)
            except KernelError as broken_off:
                if broken_off.errno != errno.EAGAIN or not left:
                    raise
        raise AssertionError("the last of them has raised")

    @classmethod
    def _load(
        cls,
        name: str,
        image: bytes,
        pin_dir: Path | None,
        pinned_maps: Collection[str] | None,
        max_entries: Mapping[str, int],
        rodata: Mapping[str, bytes],
    ) -> Self:
        lib = library()
        with captured_log() as messages:
            options = ObjectOpenOptions(object_name=name.encode())
            handle = lib.bpf_object__open_mem(image, len(image), ct.byref(options))
            if not handle:
                raise ObjectInvalid(
                    f"{name} is not a BPF object{_last_words(messages)}", log="".join(messages)
                )
            try:
                maps = dict(_maps(handle))
                _resize(maps, max_entries)
                write_constants(handle, maps.get(SECTION), rodata)
                _choose_pins(maps, pin_dir, pinned_maps)
                if (code := lib.bpf_object__load(handle)) < 0:
                    raise _load_refusal(name, -code, messages)
                return cls._of(name, handle, maps)
            finally:
                lib.bpf_object__close(handle)

    @classmethod
    def _of(cls, name: str, handle: int, maps: Mapping[str, int]) -> Self:
        lib = library()
        loaded = cls(name, {}, {})
        try:
            for map_name, pointer in maps.items():
                loaded.maps[map_name] = Map(os.dup(lib.bpf_map__fd(pointer)), map_name)
            for pointer in _each(lib.bpf_object__next_program, handle):
                program_name = lib.bpf_program__name(pointer).decode()
                loaded.programs[program_name] = Program(os.dup(lib.bpf_program__fd(pointer)), program_name)
        except OSError as problem:  # no file descriptor left
            loaded.close()
            raise refusal(problem.errno or 0, f"load {name}") from problem
        except KernelError:
            loaded.close()
            raise
        return loaded

    def close(self) -> None:
        """Close all maps and programs; what is pinned or attached lives on. May be repeated."""
        for held in self.maps.values():
            held.close()
        for program in self.programs.values():
            program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_pinned_map(path: Path) -> Map:
    """The map pinned at `path`, under the name of its pin. PinMissing or PinFailed."""
    return Map(pins.open_pin_of(path, pins.PinKind.MAP), path.name)


def _read(source: ObjectFile | Path | bytes) -> tuple[str, bytes]:
    """A name and the bytes."""
    if isinstance(source, bytes):
        return "object", source
    file = source if isinstance(source, ObjectFile) else ObjectFile(source)
    return file.name, file.image


def _each(following: Callable[[int, int | None], int | None], handle: int) -> Iterator[int]:
    pointer = following(handle, None)
    while pointer:
        yield pointer
        pointer = following(handle, pointer)


def _maps(handle: int) -> Iterator[tuple[str, int]]:
    lib = library()
    for pointer in _each(lib.bpf_object__next_map, handle):
        # libbpf puts the object's name before the section's: `tc.rodata`.
        head, dot, section = lib.bpf_map__name(pointer).decode().partition(".")
        yield dot + section if dot else head, pointer


def _expect_known(names: Collection[str], maps: Mapping[str, int]) -> None:
    if unknown := sorted(set(names) - maps.keys()):
        raise ObjectInvalid(
            f"the object has no map {unknown[0]!r}", hint=f"it has: {', '.join(sorted(maps))}"
        )


def _resize(maps: Mapping[str, int], max_entries: Mapping[str, int]) -> None:
    _expect_known(max_entries.keys(), maps)
    for name, entries in max_entries.items():
        if (code := library().bpf_map__set_max_entries(maps[name], entries)) < 0:
            raise refusal(-code, f"give map {name!r} {entries} entries")


def _choose_pins(maps: Mapping[str, int], pin_dir: Path | None, pinned: Collection[str] | None) -> None:
    if pinned is None:
        pinned = {name for name in maps if not name.startswith(".")}
    _expect_known(pinned, maps)
    if pin_dir and pinned:
        pins.make_pin_directory(pin_dir)
    for name, pointer in maps.items():
        path = pin_dir / name if pin_dir and name in pinned else None
        if path and path.exists():
            _reuse(name, pointer, path)
            path = None
        if (code := library().bpf_map__set_pin_path(pointer, bytes(path) if path else None)) < 0:
            raise refusal(-code, f"choose the pin of map {name!r}")


def _reuse(name: str, pointer: int, path: Path) -> None:
    """Put an existing map in the place of the one that would be created.

    libbpf would do so by itself, but tells differences apart only as "parameter mismatch", and (before 1.6)
    takes the flag that the kernel adds to device maps for one.
    """
    with open_pinned_map(path) as existing:
        if differences := tuple(_differences(pointer, existing)):
            raise MapLayoutChanged(name, path, differences)
        if (code := library().bpf_map__reuse_fd(pointer, existing.fd)) < 0:
            raise refusal(-code, f"use the pinned map {path}")


def _differences(pointer: int, existing: Map) -> Iterator[str]:
    lib = library()
    kind = MapType(lib.bpf_map__type(pointer))
    ignored = _RDONLY_PROG if kind in (MapType.DEVMAP, MapType.DEVMAP_HASH) else 0
    if existing.type is not kind:
        yield f"it is a {existing.type.name}, wanted {kind.name}"
    for what, found, wanted in (
        ("key size", existing.key_size, lib.bpf_map__key_size(pointer)),
        ("value size", existing.value_size, lib.bpf_map__value_size(pointer)),
        ("max_entries", existing.max_entries, lib.bpf_map__max_entries(pointer)),
        ("flags", existing.flags & ~ignored, lib.bpf_map__map_flags(pointer) & ~ignored),
    ):
        if found != wanted:
            yield f"{what} {found}, wanted {wanted}"


def _load_refusal(name: str, code: int, messages: list[str]) -> KernelError:
    log = "".join(messages)
    if code == errno.EPERM:
        return refusal(code, f"load {name}", log=log)
    for message in messages:
        if "BEGIN PROG LOAD LOG" in message:
            return ProgramRejected(message.split("'")[1], errno=code, log=log)
    return refusal(code, f"load {name}{_last_words(messages)}", log=log)


def _last_words(messages: list[str]) -> str:
    """What libbpf said before it gave up, without the lines that only say that it did."""
    said = [line for line in messages if "failed to load object" not in line]
    return f" ({said[-1].removeprefix('libbpf: ').strip()})" if said else ""
