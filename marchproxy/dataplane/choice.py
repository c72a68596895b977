"""Which tier carries: the kernel where BPF is permitted, else sockets; and what admits beside it."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from marchproxy.dataplane.admission.listeningsockets import ListeningSockets
from marchproxy.dataplane.admission.names import Find
from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.credentials.certificates import CertificateKeeper
from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.fdstore import DescriptorStore
from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.options import RunOptions
from marchproxy.dataplane.proxy.tier import SocketsTier
from marchproxy.dataplane.tier import Tier
from marchproxy.dataplane.workers.pool import WorkerPool

if TYPE_CHECKING:
    from marchproxy.dataplane.admission.handover import Handover
    from marchproxy.dataplane.admission.sharing import Sharing

log = logging.getLogger(__name__)


def choose_tier(*, no_bpf: bool, flow_table: int, ahead: Ahead | None = None) -> tuple[Tier, str]:
    """The tier, and why this one. `flow_table` is how many entries a new flow table gets. What `ahead` has
    loaded is taken.

    Raises `MarchproxyError` where BPF is permitted and fails nevertheless.
    That is no reason for sockets: programs of an earlier run may be in the kernel, and would go on carrying a
    policy that nobody updates. Without a BPF file system there are none; nor where nothing is attached, and a
    kernel that refuses the programs will refuse them again, however often the daemon is started.
    """
    if no_bpf:
        return SocketsTier(), "--no-bpf was given"
    from marchproxy.dataplane.kernel.errors import (
        LibbpfMissing,
        NoBpffs,
        NotPermitted,
        NotSupported,
        ProgramRejected,
    )
    from marchproxy.dataplane.kernel.tier import KernelTier

    try:
        pipeline = ahead.take() if ahead else None
        tier = KernelTier(pipeline) if pipeline else KernelTier.create(flow_table)
        return tier, "BPF is permitted"
    except (LibbpfMissing, NoBpffs, NotPermitted, NotSupported) as error:
        log.warning("sockets carry, not the kernel: %s", error.message)
        return SocketsTier(), error.message
    except ProgramRejected as error:
        if left_in_kernel():
            raise
        log.warning("sockets carry, not the kernel: %s", error.message)
        return SocketsTier(), f"kernel {os.uname().release}: {error.message.partition('\n')[0]}"


def choose_admission(
    tier: Tier,
    find: Find,
    credentials: CredentialKeeper,
    certificates: CertificateKeeper,
    store: DescriptorStore,
    options: RunOptions,
    logged: Callable[[Said], None],
) -> Admission | WorkerPool:
    """Admission beside `tier`: in the daemon, or in processes of its own, whose log `logged` takes."""
    handover, sharing = _handover_to(tier), _sharing_beside(tier)
    sockets = ListeningSockets(sharing, store, _diverted_by(tier), max(1, options.workers))
    if options.workers:
        return WorkerPool(
            options.workers,
            find,
            credentials,
            certificates,
            handover,
            sockets,
            options.verbosity,
            options.log_format,
            logged,
        )
    return Admission(
        find,
        credentials,
        handover=handover,
        sockets=sockets,
        shared=tier.name == "sockets",
        contexts=certificates.contexts,
    )


def _handover_to(tier: Tier) -> "Handover | None":
    """What gives tunnels to the tier; None: it is not the kernel's."""
    if tier.name != "kernel":
        return None
    from marchproxy.dataplane.admission.handover import Handover
    from marchproxy.dataplane.kernel.tier import KernelTier

    return Handover(tier) if isinstance(tier, KernelTier) else None


def _diverted_by(tier: Tier) -> Callable[[], Sequence[socket.socket]]:
    """Where the tier brings what passes through and has to be looked at; nowhere, without BPF."""
    if tier.name != "kernel":
        return tuple
    from marchproxy.dataplane.kernel.tier import KernelTier

    return tier.diverted if isinstance(tier, KernelTier) else tuple


def _sharing_beside(tier: Tier) -> "Sharing | None":
    """What lets listeners share sockets that the tier does not carry; None: nothing, without BPF."""
    if tier.name != "kernel":
        return None
    from marchproxy.dataplane.kernel.location import lookup_directory
    from marchproxy.dataplane.kernel.lookup import Lookup

    return Lookup(lookup_directory())


def left_in_kernel() -> str:
    """What is wrong when sockets carry beside the programs of an earlier daemon; empty if there are none."""
    from marchproxy.dataplane.kernel.location import pin_directory

    links = pin_directory() / "links"
    try:
        attached = any(links.iterdir())
    except OSError:
        return ""
    if not attached:
        return ""
    return (
        "programs that an earlier daemon left in the kernel still carry its policy:"
        " marchproxy detach takes them out"
    )
