"""The way to an address that somebody asks about: whether there is one, and what it carries."""

from collections.abc import Iterator

from marchproxy.dataplane.doctor.case import Case
from marchproxy.dataplane.doctor.device import look
from marchproxy.dataplane.doctor.echoes import Echoes
from marchproxy.dataplane.doctor.finding import Finding, error, fine, warning
from marchproxy.dataplane.doctor.sizes import PathSize, find_size
from marchproxy.dataplane.kernel.routelookup import Way, route_to
from marchproxy.model.address import IPAddress


def path(case: Case) -> Iterator[Finding]:
    """Whether packets as large as the own link takes get there."""
    for address in case.paths:
        way = route_to(address)
        device = look(way.interface) if way else None
        if way is None or device is None:
            text = f"the routing table knows no way to {address}"
            yield error(text, f"ip route get {address}", f"ip route add {address} via GATEWAY")
            continue
        try:
            echoes = Echoes(address)
        except PermissionError:
            text = f"the way to {address} was not looked at: that takes root"
            yield warning(text, "a raw socket is not permitted", f"sudo marchproxy doctor --path {address}")
            continue
        try:
            found = find_size(echoes, device.mtu)
        finally:
            echoes.close()
        yield judged(address, way, found)


def judged(address: IPAddress, way: Way, found: PathSize) -> Finding:
    """What a measurement means."""
    seen = f"echoes of {found.largest} bytes are answered, of {found.tried} not"
    if not found.largest:
        text = f"{address} answers no echo of any size: it is down, or does not answer echoes"
        return warning(text, f"asked by {way.interface}", f"ip neighbour show {way.gateway or address}")
    if found.is_black_hole:
        text = (
            f"packets of more than {found.largest} bytes vanish on the way to {address}, and nobody says so:"
            " an MTU black hole"
        )
        via = f" via {way.gateway}" if way.gateway else ""
        # Unlocked, it would hold for what this host sends itself, and not for what it forwards.
        fix = f"ip route add {address} dev {way.interface}{via} mtu lock {found.largest}"
        return error(text, f"{seen}, and no ICMP error came", fix)
    if found.told:
        narrow = f"{found.told.mtu} bytes" if found.told.mtu else "less"
        text = f"a link on the way to {address} takes {narrow}, and {found.told.sender} tells senders so"
        return fine(text, seen)
    return fine(f"packets of {found.largest} bytes get to {address} and are answered", f"by {way.interface}")
