"""Two ends of TLS in memory that come to an agreement."""

from marchproxy.dataplane.proxy.protocol.secured import Secured


def agree(server: Secured, client: Secured, size: int = 1 << 16) -> None:
    """Let both talk, in pieces of `size`, until they have agreed and the client has its tickets."""
    client.shake(b"")
    while not (server.established and client.established):
        for one, other in ((client, server), (server, client)):
            said = one.unsent()
            for start in range(0, len(said), size):
                piece = said[start : start + size]
                if other.established:
                    assert not other.open(piece)
                else:
                    other.shake(piece)
    client.open(server.unsent())
