"""Which addresses a host name may not resolve to.

Whoever owns a public name can have it point into the network behind the appliance, and a client that is
allowed to talk to that name would then be allowed to talk to whatever they chose (DNS rebinding). Names that
are meant to be inside are named in `Settings.private_answers`.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv6Address

from marchproxy.model.address import IPAddress
from marchproxy.model.inward import inward
from marchproxy.model.patterns import Patterns

type IsLocal = Callable[[IPAddress], bool]


class Rebinding:
    """Judges the addresses in answers. `private` are names, `*.` wildcards included, that may have any."""

    def __init__(self, private: Iterable[str], is_local: IsLocal) -> None:
        self._private = Patterns(private)
        self._is_local = is_local

    def refusal(self, name: str, address: IPAddress) -> str:
        """What `address` is that `name` may not resolve to it, as in "a private address"; empty: it may.

        A wildcard may have what some name below it may have.
        """
        if isinstance(address, IPv6Address) and (
            address.ipv4_mapped is not None or address.scope_id is not None
        ):
            # On the wire it is IPv4, or means another host on each link: a plan has no place for either.
            return "no address of a host in the network"
        if self._private.meets(name):
            return ""
        return inward(address) or ("the appliance's own address" if self._is_local(address) else "")
