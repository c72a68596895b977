"""IP forwarding on the interfaces of the data plane.

The kernel answers forwarding look-ups only for interfaces on which forwarding is on. It is switched on per
interface, and `detach` puts back what was there.
"""

from marchproxy.dataplane.kernel.sysctls import Sysctls


class Forwarding:
    """Switches IPv4 and IPv6 forwarding on. A family that the kernel lacks is left out."""

    def __init__(self, sysctls: Sysctls) -> None:
        self._sysctls = sysctls

    def enable(self, interface: str) -> None:
        """Switch forwarding on where it is off.

        Raises `NotPermitted`.
        """
        self._set(f"net/ipv4/conf/{interface}/forwarding", "0", "1")
        if self._sysctls.read(f"net/ipv6/conf/{interface}/forwarding") == "0":
            # A forwarding host drops what it learned from router advertisements, its default route among it,
            # unless told that it is meant to listen to them all the same (2; kernel's ip-sysctl.rst).
            self._set(f"net/ipv6/conf/{interface}/accept_ra", "1", "2")
            self._set(f"net/ipv6/conf/{interface}/forwarding", "0", "1")

    def _set(self, name: str, found: str, wanted: str) -> None:
        if self._sysctls.read(name) == found:
            self._sysctls.set(name, wanted)
