"""Two tiers, one contract: what the supervisor may call, it may call on either."""

import inspect

import pytest

from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.dataplane.proxy.tier import SocketsTier
from marchproxy.dataplane.tier import Tier

METHODS = sorted(name for name, item in vars(Tier).items() if inspect.isfunction(item) and name[0] != "_")


@pytest.mark.parametrize("kind", [KernelTier, SocketsTier])
@pytest.mark.parametrize("method", METHODS)
def test_a_tier_has_the_method_as_the_contract_says(kind: type, method: str) -> None:
    promised, kept = getattr(Tier, method), getattr(kind, method)
    assert inspect.iscoroutinefunction(kept) == inspect.iscoroutinefunction(promised)
    assert list(inspect.signature(kept).parameters) == list(inspect.signature(promised).parameters)


def test_the_contract_is_not_empty() -> None:
    assert {"apply", "poll", "want", "counters", "drain"} <= set(METHODS)


def test_tiers_are_told_apart_by_name() -> None:
    assert SocketsTier().name == "sockets"
    assert KernelTier.name == "kernel"
