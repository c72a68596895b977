"""libbpf.so.1, the system's or ours, by ctypes: the only module that declares C functions and C structs.

`library()` loads it at first use, so that importing this package costs nothing and works where libbpf is
missing. ctypes releases the GIL during every call; callers therefore pass buffers that belong to the call
alone.

Return values follow libbpf 1.x: functions returning int answer a negative errno, functions returning a
pointer answer NULL and set errno (`ct.get_errno()`). An options struct carries its own size first, which is
how libbpf stays compatible in both directions; `Options` fills it in.
"""

import ctypes as ct
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marchproxy.dataplane.kernel.errors import LibbpfMissing

_SONAME = "libbpf.so.1"
_BROUGHT = Path(sys.prefix) / "lib" / "fallback" / _SONAME
"""Where packages that bring a Python of their own have one, too (`packaging/payload.sh`)."""
_MINIMUM = (1, 1)
_WARN, _BPF_FS_MAGIC = 0, 0xCAFE4A11

POINTER, STRING, SIZE = ct.c_void_p, ct.c_char_p, ct.c_size_t
INT, U8, U32, U64 = ct.c_int, ct.c_uint8, ct.c_uint32, ct.c_uint64

SK_LOOKUP, XDP, TCX_INGRESS = 36, 37, 46
"""Of `enum bpf_attach_type`: where programs go, and what is asked about."""

PERF_SAMPLE_CALLBACK = ct.CFUNCTYPE(None, POINTER, INT, POINTER, U32)
"""`perf_buffer_sample_fn`: context, CPU, record, size in bytes."""
PERF_LOST_CALLBACK = ct.CFUNCTYPE(None, POINTER, INT, U64)
"""`perf_buffer_lost_fn`: context, CPU, number of records."""
_PRINT_CALLBACK = ct.CFUNCTYPE(INT, INT, POINTER, POINTER)


class Options(ct.Structure):
    """Base of the option structs; a subclass' first field is `sz`."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(sz=ct.sizeof(self), **fields)


class ObjectOpenOptions(Options):
    """`struct bpf_object_open_opts`, up to the field that is used."""

    _fields_ = (("sz", SIZE), ("object_name", STRING))


class LinkCreateOptions(Options):
    """`struct bpf_link_create_opts`, up to the field that is used."""

    _fields_ = (("sz", SIZE), ("flags", U32))


class BatchOptions(Options):
    """`struct bpf_map_batch_opts`."""

    _fields_ = (("sz", SIZE), ("elem_flags", U64), ("flags", U64))


class MapCreateOptions(Options):
    """`struct bpf_map_create_opts`, up to the field that is used."""

    _fields_ = (
        ("sz", SIZE),
        ("btf_fd", U32),
        ("btf_key_type_id", U32),
        ("btf_value_type_id", U32),
        ("btf_vmlinux_value_type_id", U32),
        ("inner_map_fd", U32),
        ("map_flags", U32),
    )


class XdpQueryOptions(Options):
    """`struct bpf_xdp_query_opts`: program ids by mode, filled in by the kernel."""

    _fields_ = (
        ("sz", SIZE),
        ("prog_id", U32),
        ("drv_prog_id", U32),
        ("hw_prog_id", U32),
        ("skb_prog_id", U32),
        ("attach_mode", U8),
    )


class TcHook(Options):
    """`struct bpf_tc_hook`."""

    _fields_ = (("sz", SIZE), ("ifindex", INT), ("attach_point", INT), ("parent", U32))


class TcOptions(Options):
    """`struct bpf_tc_opts`."""

    _fields_ = (
        ("sz", SIZE),
        ("prog_fd", INT),
        ("flags", U32),
        ("prog_id", U32),
        ("handle", U32),
        ("priority", U32),
    )


class TestRunOptions(Options):
    """`struct bpf_test_run_opts`."""

    _fields_ = (
        ("sz", SIZE),
        ("data_in", POINTER),
        ("data_out", POINTER),
        ("data_size_in", U32),
        ("data_size_out", U32),
        ("ctx_in", POINTER),
        ("ctx_out", POINTER),
        ("ctx_size_in", U32),
        ("ctx_size_out", U32),
        ("retval", U32),
        ("repeat", INT),
        ("duration", U32),
        ("flags", U32),
        ("cpu", U32),
        ("batch_size", U32),
    )


class MapInfo(ct.Structure):
    """The beginning of `struct bpf_map_info`; the kernel fills in as much as fits."""

    _fields_ = (
        ("type", U32),
        ("id", U32),
        ("key_size", U32),
        ("value_size", U32),
        ("max_entries", U32),
        ("map_flags", U32),
        ("name", ct.c_char * 16),
    )


class ProgramInfo(ct.Structure):
    """`struct bpf_prog_info` up to what the verifier did (kernel 5.16; older ones leave the end zero)."""

    _fields_ = (
        ("type", U32),
        ("id", U32),
        ("tag", U8 * 8),
        ("jited_prog_len", U32),
        ("xlated_prog_len", U32),
        ("jited_prog_insns", U64),
        ("xlated_prog_insns", U64),
        ("load_time", U64),
        ("created_by_uid", U32),
        ("nr_map_ids", U32),
        ("map_ids", U64),
        ("name", ct.c_char * 16),
        ("ifindex", U32),
        ("gpl_compatible", U32),
        ("netns_dev", U64),
        ("netns_ino", U64),
        ("counts_of_btf", U32 * 2),
        ("pointers_of_btf", U64 * 2),
        ("btf_id", U32),
        ("func_info_rec_size", U32),
        ("func_info", U64),
        ("nr_func_info", U32),
        ("nr_line_info", U32),
        ("line_info", U64),
        ("jited_line_info", U64),
        ("nr_jited_line_info", U32),
        ("line_info_rec_size", U32),
        ("jited_line_info_rec_size", U32),
        ("nr_prog_tags", U32),
        ("prog_tags", U64),
        ("run_time_ns", U64),
        ("run_cnt", U64),
        ("recursion_misses", U64),
        ("verified_insns", U32),
        ("end", U32),
    )


class LinkInfo(ct.Structure):
    """`struct bpf_link_info` of the kinds attached to an interface; their union starts at offset 16.

    Of a link to a network namespace, `ifindex` is the inode number of that, or 0 where it is gone.
    """

    _fields_ = (
        ("type", U32),
        ("id", U32),
        ("prog_id", U32),
        ("padding", U32),
        ("ifindex", U32),
        ("attach", U32),
    )


class BtfType(ct.Structure):
    """`struct btf_type`; `info` holds the number of members in its low 16 bits.

    `size` is the number of another type where this one only refers to it.
    """

    _fields_ = (("name_off", U32), ("info", U32), ("size", U32))


class BtfMember(ct.Structure):
    """`struct btf_member`: a field; `offset` in bits, beside a size where the type says so."""

    _fields_ = (("name_off", U32), ("type", U32), ("offset", U32))


class BtfEnumerator(ct.Structure):
    """`struct btf_enum`."""

    _fields_ = (("name_off", U32), ("value", ct.c_int32))


class BtfVariable(ct.Structure):
    """`struct btf_var_secinfo`: one variable of a data section."""

    _fields_ = (("type", U32), ("offset", U32), ("size", U32))


class XdpContext(ct.Structure):
    """`struct xdp_md`: `data` and `data_end` are offsets into the packet."""

    _fields_ = (
        ("data", U32),
        ("data_end", U32),
        ("data_meta", U32),
        ("ingress_ifindex", U32),
        ("rx_queue_index", U32),
        ("egress_ifindex", U32),
    )


class SkbContext(ct.Structure):
    """The beginning of `struct __sk_buff`: all that a test-run may set and is worth reading back."""

    _fields_ = (
        ("len", U32),
        ("pkt_type", U32),
        ("mark", U32),
        ("queue_mapping", U32),
        ("protocol", U32),
        ("vlan_present", U32),
        ("vlan_tci", U32),
        ("vlan_proto", U32),
        ("priority", U32),
        ("ingress_ifindex", U32),
        ("ifindex", U32),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    # name: (result, *arguments)
    "bpf_object__open_mem": (POINTER, POINTER, SIZE, POINTER),
    "bpf_object__load": (INT, POINTER),
    "bpf_object__close": (None, POINTER),
    "bpf_object__btf": (POINTER, POINTER),
    "bpf_object__next_map": (POINTER, POINTER, POINTER),
    "bpf_object__next_program": (POINTER, POINTER, POINTER),
    "bpf_map__name": (STRING, POINTER),
    "bpf_map__fd": (INT, POINTER),
    "bpf_map__type": (INT, POINTER),
    "bpf_map__key_size": (U32, POINTER),
    "bpf_map__value_size": (U32, POINTER),
    "bpf_map__max_entries": (U32, POINTER),
    "bpf_map__map_flags": (U32, POINTER),
    "bpf_map__set_max_entries": (INT, POINTER, U32),
    "bpf_map__set_pin_path": (INT, POINTER, STRING),
    "bpf_map__reuse_fd": (INT, POINTER, INT),
    "bpf_map__initial_value": (POINTER, POINTER, POINTER),
    "bpf_program__name": (STRING, POINTER),
    "bpf_program__fd": (INT, POINTER),
    "btf__load_vmlinux_btf": (POINTER,),
    "btf__find_by_name_kind": (INT, POINTER, STRING, U32),
    "btf__type_by_id": (POINTER, POINTER, U32),
    "btf__name_by_offset": (STRING, POINTER, U32),
    "bpf_obj_pin": (INT, INT, STRING),
    "bpf_obj_get": (INT, STRING),
    "bpf_obj_get_info_by_fd": (INT, INT, POINTER, POINTER),
    "bpf_map_create": (INT, INT, STRING, U32, U32, U32, POINTER),
    "bpf_map_lookup_elem": (INT, INT, POINTER, POINTER),
    "bpf_map_update_elem": (INT, INT, POINTER, POINTER, U64),
    "bpf_map_delete_elem": (INT, INT, POINTER),
    "bpf_map_get_next_key": (INT, INT, POINTER, POINTER),
    "bpf_map_lookup_batch": (INT, INT, POINTER, POINTER, POINTER, POINTER, POINTER, POINTER),
    "bpf_map_update_batch": (INT, INT, POINTER, POINTER, POINTER, POINTER),
    "bpf_map_delete_batch": (INT, INT, POINTER, POINTER, POINTER),
    "bpf_prog_load": (INT, INT, STRING, STRING, POINTER, SIZE, POINTER),
    "bpf_prog_query": (INT, INT, INT, U32, POINTER, POINTER, POINTER),
    "bpf_prog_test_run_opts": (INT, INT, POINTER),
    "bpf_enable_stats": (INT, INT),
    "bpf_link_create": (INT, INT, INT, INT, POINTER),
    "bpf_link_update": (INT, INT, INT, POINTER),
    "bpf_link_detach": (INT, INT),
    "bpf_xdp_query": (INT, INT, INT, POINTER),
    "bpf_tc_hook_create": (INT, POINTER),
    "bpf_tc_attach": (INT, POINTER, POINTER),
    "bpf_tc_detach": (INT, POINTER, POINTER),
    "bpf_tc_query": (INT, POINTER, POINTER),
    "perf_buffer__new": (POINTER, INT, SIZE, PERF_SAMPLE_CALLBACK, PERF_LOST_CALLBACK, POINTER, POINTER),
    "perf_buffer__consume": (INT, POINTER),
    "perf_buffer__free": (None, POINTER),
    "libbpf_num_possible_cpus": (INT,),
    "libbpf_set_print": (POINTER, _PRINT_CALLBACK),
}


@functools.cache
def library() -> ct.CDLL:
    """libbpf with its signatures declared. LibbpfMissing where there is none, or one older than 1.1.

    The system's comes first: it gets the distribution's corrections.
    """
    try:
        loaded = _load(_SONAME)
    except LibbpfMissing:
        if not _BROUGHT.exists():
            raise
        loaded = _load(str(_BROUGHT))
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.libbpf_set_print(_print)
    return loaded


def _load(name: str) -> ct.CDLL:
    hint = "install the package libbpf1 (Debian, Ubuntu) or libbpf (elsewhere)"
    try:
        loaded = ct.CDLL(name, use_errno=True)
        version = (int(loaded.libbpf_major_version()), int(loaded.libbpf_minor_version()))
    except (OSError, AttributeError) as problem:
        raise LibbpfMissing(f"{_SONAME} cannot be loaded: {problem}", hint=hint) from problem
    if version < _MINIMUM:
        raise LibbpfMissing(
            f"{_SONAME} is version {version[0]}.{version[1]}, older than {_MINIMUM[0]}.{_MINIMUM[1]}",
            hint=hint,
        )
    return loaded


@functools.cache
def possible_cpus() -> int:
    """How many values an entry of a per-CPU map has: CPUs that could ever be plugged in, not those online."""
    return int(library().libbpf_num_possible_cpus())


def object_info[Info: ct.Structure](fd: int, into: Info) -> int:
    """Fill `into` with what the kernel knows about a map, program or link; 0, or a negative errno."""
    size = U32(ct.sizeof(into))
    return int(library().bpf_obj_get_info_by_fd(fd, ct.byref(into), ct.byref(size)))


def on_bpffs(path: Path) -> bool:
    """Whether an existing `path` lies on a BPF file system. OSError where the path cannot be read."""
    # f_type is the first word of struct statfs on every 64-bit Linux; the rest of the struct is smaller than
    # this.
    status = (ct.c_long * 64)()
    if _libc().statfs(bytes(path), ct.byref(status)) < 0:
        code = ct.get_errno()
        raise OSError(code, "statfs failed", str(path))
    return int(status[0]) & 0xFFFFFFFF == _BPF_FS_MAGIC


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what libbpf prints on this thread, verifier logs included; outside of this it is discarded."""
    outer, _log.messages = _log.messages, []
    try:
        yield _log.messages
    finally:
        _log.messages = outer


class _Log(threading.local):
    """libbpf has one print function for the process, and calls it on the thread that does the work."""

    messages: list[str] | None = None


_log = _Log()


@functools.cache
def _libc() -> ct.CDLL:
    libc = ct.CDLL(None, use_errno=True)
    libc.vasprintf.argtypes = (POINTER, POINTER, POINTER)
    libc.free.argtypes = (POINTER,)
    libc.statfs.argtypes = (STRING, POINTER)
    return libc


def _keep_message(level: int, text_format: int, arguments: int) -> int:
    """Keep a message of libbpf. vasprintf and not vsnprintf: a verifier log has no useful maximum length.

    A va_list as an argument is one pointer on x86-64, AArch64, RISC-V and s390x, by their calling
    conventions.
    """
    if level == _WARN and _log.messages is not None:
        text = POINTER()
        if _libc().vasprintf(ct.byref(text), text_format, arguments) >= 0:
            _log.messages.append(ct.string_at(text.value or 0).decode(errors="replace"))
            _libc().free(text)
    return 0


_print = _PRINT_CALLBACK(_keep_message)
"""Referred to from here for ever: libbpf may print at any time."""
