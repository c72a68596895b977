"""Which tier, and why."""

import os
from pathlib import Path
from typing import cast

import pytest

from marchproxy.dataplane import choice
from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.fdstore import DescriptorStore
from marchproxy.dataplane.kernel import errors, location
from marchproxy.dataplane.kernel.loading import Pipeline
from marchproxy.dataplane.kernel.tier import BpfNotPermitted, KernelTier
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.notify import Notifier
from marchproxy.dataplane.options import RunOptions
from marchproxy.dataplane.proxy.tier import SocketsTier
from marchproxy.dataplane.workers.pool import WorkerPool
from tests.certificates import keeper
from tests.dataplane.loops import looped


class Loaded(Ahead):
    """A pipeline was loaded ahead."""

    def __init__(self) -> None:
        self.pipeline = cast(Pipeline, object())

    def take(self) -> Pipeline:
        return self.pipeline


def test_what_was_loaded_ahead_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(KernelTier, "__init__", lambda self, pipeline: given.append(pipeline))
    ahead = Loaded()
    tier, reason = choice.choose_tier(no_bpf=False, flow_table=1024, ahead=ahead)
    assert (type(tier), reason, given) == (KernelTier, "BPF is permitted", [ahead.pipeline])


def test_sockets_when_asked_for() -> None:
    tier, reason = choice.choose_tier(no_bpf=True, flow_table=1024)
    assert (type(tier), reason) == (SocketsTier, "--no-bpf was given")


@pytest.mark.parametrize(
    "refusal",
    [
        BpfNotPermitted("BPF cannot be used: CAP_BPF missing"),
        errors.LibbpfMissing("libbpf.so.1 is not installed"),
        errors.NotSupported("no ring buffer"),
        errors.NoBpffs("/sys/fs/bpf/marchproxy/v1 is not on a BPF file system"),
    ],
)
def test_sockets_where_bpf_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusal: errors.KernelError
) -> None:
    def refuse(flow_table: int) -> KernelTier:
        raise refusal

    monkeypatch.setattr(KernelTier, "create", refuse)
    tier, reason = choice.choose_tier(no_bpf=False, flow_table=1024)
    assert (type(tier), reason) == (SocketsTier, refusal.message)
    assert caplog.messages == [f"sockets carry, not the kernel: {refusal.message}"]


def test_a_kernel_that_refuses_the_programs_gets_sockets_and_no_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unless those of an earlier daemon would go on carrying what nobody updates."""

    def refuse(flow_table: int) -> KernelTier:
        raise errors.ProgramRejected("marchproxy_tc", errno=22, log="5297: a line\nback-edge\n")

    monkeypatch.setattr(KernelTier, "create", refuse)
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(tmp_path))
    tier, reason = choice.choose_tier(no_bpf=False, flow_table=1024)
    assert type(tier) is SocketsTier
    kernel = os.uname().release
    assert (
        reason == f"kernel {kernel}: the verifier rejected program 'marchproxy_tc': Invalid argument (EINVAL)"
    )
    location.link_directory().mkdir(parents=True)
    (location.link_directory() / "eth0").touch()
    with pytest.raises(errors.ProgramRejected):
        choice.choose_tier(no_bpf=False, flow_table=1024)


def test_a_kernel_tier_that_fails_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flow_table: int) -> KernelTier:
        raise errors.ObjectInvalid("tc is not a BPF object")

    monkeypatch.setattr(KernelTier, "create", refuse)
    with pytest.raises(errors.ObjectInvalid):
        choice.choose_tier(no_bpf=False, flow_table=1024)


async def find(name: str) -> Found:
    raise LookupFailed(Failure.NXDOMAIN)


@pytest.mark.parametrize(("workers", "kind"), [(0, Admission), (2, WorkerPool)])
def test_who_admits_beside_a_tier(workers: int, kind: type) -> None:
    credentials, options = cast(CredentialKeeper, object()), RunOptions(workers=workers)
    store = DescriptorStore(Notifier(), {})

    @looped
    async def choose() -> None:
        made = choice.choose_admission(SocketsTier(), find, credentials, keeper(), store, options, print)
        assert type(made) is kind

    choose()
