"""Which tier, and why."""

import pytest

from marchproxy.dataplane import choice
from marchproxy.dataplane.kernel import errors
from marchproxy.dataplane.kernel.tier import BpfNotPermitted, KernelTier
from marchproxy.dataplane.proxy.tier import SocketsTier


def test_sockets_when_asked_for() -> None:
    tier, reason = choice.choose_tier(no_bpf=True, flow_table=1024)
    assert (type(tier), reason) == (SocketsTier, "--no-bpf was given")


@pytest.mark.parametrize(
    "refusal",
    [
        BpfNotPermitted("BPF cannot be used: CAP_BPF missing"),
        errors.LibbpfMissing("libbpf.so.1 is not installed"),
        errors.NotSupported("no ring buffer"),
    ],
)
def test_sockets_where_bpf_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, refusal: errors.KernelError
) -> None:
    def refuse(flow_table: int) -> KernelTier:
        raise refusal

    monkeypatch.setattr(KernelTier, "create", refuse)
    tier, reason = choice.choose_tier(no_bpf=False, flow_table=1024)
    assert (type(tier), reason) == (SocketsTier, refusal.message)


def test_a_kernel_tier_that_fails_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flow_table: int) -> KernelTier:
        raise errors.ProgramRejected("marchproxy_tc", errno=22, log="")

    monkeypatch.setattr(KernelTier, "create", refuse)
    with pytest.raises(errors.ProgramRejected):
        choice.choose_tier(no_bpf=False, flow_table=1024)


def test_listeners_share_sockets_beside_the_kernel_tier_only() -> None:
    assert choice.sharing_beside(SocketsTier()) is None


def test_tunnels_stay_in_user_space_beside_sockets() -> None:
    assert choice.handover_to(SocketsTier()) is None
