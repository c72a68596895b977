"""The folder of headers that BCC compiles against, in the place of the kernel's own, which few machines have.

BCC includes a handful of kernel headers by itself and needs little of them; the fields that are read are told
as offsets.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from marchproxy.dataplane.kernel.structs import KernelTypes
from marchproxy.dataplane.trace.scope import Scope

_OFFSETS: Final[Mapping[str, tuple[str, ...]]] = {
    "SKB_DEV": ("sk_buff", "dev"),
    "SKB_SK": ("sk_buff", "sk"),
    "SKB_HEAD": ("sk_buff", "head"),
    "SKB_DATA": ("sk_buff", "data"),
    "SKB_NETWORK_HEADER": ("sk_buff", "network_header"),
    "SKB_DST": ("sk_buff", "_skb_refdst"),
    "SKB_PROTOCOL": ("sk_buff", "protocol"),
    "DST_DEV": ("dst_entry", "dev"),
    "NET_DEVICE_NET": ("net_device", "nd_net", "net"),
    "NET_DEVICE_IFINDEX": ("net_device", "ifindex"),
    "NET_DEVICE_NAME": ("net_device", "name"),
    "NET_NS_INUM": ("net", "ns", "inum"),
    "TASK_PROCESS": ("task_struct", "tgid"),
    "TASK_PARENT": ("task_struct", "real_parent"),
    "SOCK_NET": ("sock_common", "skc_net", "net"),
    "SOCK_FAMILY": ("sock_common", "skc_family"),
    "SOCK_SOURCE_V4": ("sock_common", "skc_rcv_saddr"),
    "SOCK_DESTINATION_V4": ("sock_common", "skc_daddr"),
    "SOCK_SOURCE_V6": ("sock_common", "skc_v6_rcv_saddr"),
    "SOCK_DESTINATION_V6": ("sock_common", "skc_v6_daddr"),
    "SOCK_SOURCE_PORT": ("sock_common", "skc_num"),
    "SOCK_DESTINATION_PORT": ("sock_common", "skc_dport"),
}
"""A socket begins with its `sock_common`."""

REASONS: Final = "skb_drop_reason"
REASON_PREFIX: Final = "SKB_DROP_REASON_"
_REFUSED: Final = f"{REASON_PREFIX}TC_INGRESS"

_TYPES: Final = """\
#pragma once
typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16, __le16, __sum16;
typedef __u32 __be32, __le32, __wsum;
typedef __u64 __be64, __le64;
typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef unsigned long size_t, uintptr_t;
typedef int pid_t;
typedef _Bool bool;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef NULL
#define NULL ((void *)0)
#endif
"""
_EMPTY: Final = (
    "asm/page.h",
    "linux/bpf_common.h",
    "linux/log2.h",
    "uapi/linux/bpf.h",
    "uapi/linux/if_packet.h",
    "uapi/linux/ptrace.h",
)
"""What BCC includes and needs nothing of."""


def write_headers(
    folder: Path, types: KernelTypes, *, namespace: int, rate: int, scope: Scope | None = None
) -> None:
    """Make `folder` what BCC takes for the kernel's sources.

    `namespace` is the number of the network namespace to look at, `scope` what of it is told (None: all),
    `rate` how many events a second are. Raises `NotSupported` where this kernel lacks a field.
    """
    include = folder / "include"
    texts = dict.fromkeys(_EMPTY, "")
    texts["linux/kconfig.h"] = "#define CONFIG_BPF_SYSCALL 1\n"
    texts["linux/types.h"] = _TYPES
    texts["linux/version.h"] = _version(platform.release())
    texts["kernel.h"] = _kernel(types, namespace, rate) + _scope(scope)
    for name, text in texts.items():
        path = include / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def namespace_number(process: int | str = "self") -> int:
    """The number of a process's network namespace. Raises OSError."""
    return os.stat(f"/proc/{process}/ns/net").st_ino


def _kernel(types: KernelTypes, namespace: int, rate: int) -> str:
    lines = [f"#define OFFSET_{name} {types.offset(*path)}" for name, path in _OFFSETS.items()]
    if types.tracepoint_arguments("kfree_skb") > 3:
        lines.append("#define HAS_RECEIVER 1")
    refused = (number for number, name in types.enumerators(REASONS).items() if name == _REFUSED)
    # Before kernel 5.18 no reason says it, and 0 is none.
    lines.append(f"#define REASON_TC_INGRESS {next(refused, 0)}")
    return "\n".join(
        ["#pragma once", *lines, f"#define NAMESPACE {namespace}u", f"#define RATE {rate}ull", ""]
    )


def _scope(scope: Scope | None) -> str:
    """Sizes of the maps of `bpf/trace/scope.h`, which have to have room for one at least."""
    if scope is None:
        return "#define EVERYTHING 1\n"
    sizes = {
        "SERVICES": len(scope.services),
        "PLACES": len(scope.places),
        "ADDRESSES": len(scope.own),
        "INTERFACES": len(scope.interfaces),
    }
    lines = [f"#define {name} {max(size, 1)}\n" for name, size in sizes.items()]
    lines.append(f"#define DAEMON {scope.daemon}u\n")
    if scope.pins is not None:
        lines.append(f"#define PINS {json.dumps(str(scope.pins))}\n")
    return "".join(lines)


def _version(release: str) -> str:
    major, minor, patch, *_ = [*map(int, re.findall(r"\d+", release)), 0, 0, 0]
    code = (major << 16) + (minor << 8) + min(patch, 255)
    macro = "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))"
    return f"#define LINUX_VERSION_CODE {code}\n{macro}\n"
