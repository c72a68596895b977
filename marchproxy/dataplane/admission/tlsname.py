"""Whether the name in a TLS hello may go where its connection goes."""

from collections.abc import Callable

from marchproxy.dataplane.proxy.protocol.exchange import Request
from marchproxy.model.entities import WithoutSni
from marchproxy.model.reason import Reason


def refusal(
    hello: Request, without: WithoutSni, fits: Callable[[str], bool], by_address: Callable[[], bool]
) -> Reason | None:
    """Why it may not; None: it may. `hello` is what an `SniLayer` asks.

    A name that is shown must fit, also where another one may be hidden behind it (ECH): what is hidden counts
    as not shown. `by_address`: whether the address alone would do.
    """
    if isinstance(hello.host, str):
        if not fits(hello.host):
            return Reason.SNI_MISMATCH
        if not hello.ech:
            return None
    if without is WithoutSni.ALLOW or (without is WithoutSni.ADDRESS and by_address()):
        return None
    return Reason.SNI_MISSING
