"""What is said of listeners on a range of ports, said once."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from marchproxy.model.endpoint import Endpoints
from marchproxy.model.ports import PortRange
from marchproxy.policy.plan import Listener


def spans[T](said: Iterable[tuple[Listener, T]]) -> Iterator[tuple[Listener, PortRange, T]]:
    """Listeners that come in the order of a plan, at consecutive ports of one address and with the same said
    of them, as one: the first of them, and the ports.
    """
    # Along consecutive ports, port and position grow together.
    alike = groupby(
        (
            (listener.key._replace(port=listener.port - position), saying, listener)
            for position, (listener, saying) in enumerate(said)
        ),
        lambda each: each[:2],
    )
    for (_, saying), run in alike:
        listeners = [listener for *_, listener in run]
        yield listeners[0], PortRange(listeners[0].port, listeners[-1].port), saying


def spanned(listener: Listener, ports: PortRange) -> str:
    """Text for the listeners that are like this one on these ports."""
    return f"{Endpoints(listener.address, ports)}/{listener.transport}"
