"""structs: where fields of this kernel are, by comparison with what bpftool prints."""

import json
import subprocess
from typing import Any

import pytest

from marchproxy.dataplane.kernel.errors import NotSupported
from marchproxy.dataplane.kernel.structs import KernelTypes, kernel_types

pytestmark = pytest.mark.requires("btf")


@pytest.fixture(scope="module")
def types() -> KernelTypes:
    return kernel_types()


def test_fields_whose_place_is_known_everywhere(types: KernelTypes) -> None:
    """Addresses and ports come first in every socket since kernel 3.13."""
    assert types.offset("sock_common", "skc_daddr") == 0
    assert types.offset("sock_common", "skc_rcv_saddr") == 4
    assert types.offset("sock_common", "skc_dport") == 12
    assert types.offset("iphdr", "saddr") == 12
    assert types.offset("ipv6hdr", "daddr") == 24
    assert types.offset("sock") == 0


@pytest.mark.requires(commands=["bpftool"])
@pytest.mark.parametrize(
    ("struct", "field"),
    [("net_device", "ifindex"), ("net_device", "nd_net"), ("net", "ns")],
)
def test_as_another_program_reads_them(types: KernelTypes, struct: str, field: str) -> None:
    assert types.offset(struct, field) == offsets(struct)[field]


def test_fields_of_fields(types: KernelTypes) -> None:
    inner = types.offset("ns_common", "inum")
    assert types.offset("net", "ns", "inum") == types.offset("net", "ns") + inner


def test_reasons_have_names(types: KernelTypes) -> None:
    found = types.enumerators("skb_drop_reason")
    assert found[2] == "SKB_DROP_REASON_NOT_SPECIFIED"
    assert "SKB_DROP_REASON_NO_SOCKET" in found.values()


def test_arguments_of_tracepoints(types: KernelTypes) -> None:
    assert types.tracepoint_arguments("netif_receive_skb") == 1
    assert types.tracepoint_arguments("kfree_skb") >= 3


def test_what_this_kernel_does_not_have(types: KernelTypes) -> None:
    with pytest.raises(NotSupported, match=r"no field nonsense"):
        types.offset("sk_buff", "nonsense")
    with pytest.raises(NotSupported, match="does not know nonsense"):
        types.offset("nonsense", "dev")
    with pytest.raises(NotSupported):
        types.tracepoint_arguments("nonsense")


def offsets(struct: str) -> dict[str, int]:
    words = ["bpftool", "-j", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"]
    types: list[dict[str, Any]] = json.loads(subprocess.check_output(words))["types"]
    (found,) = [each for each in types if (each["kind"], each.get("name")) == ("STRUCT", struct)]
    return {member["name"]: member["bits_offset"] // 8 for member in found["members"]}
