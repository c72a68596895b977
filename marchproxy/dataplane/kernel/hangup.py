"""Tells the ends of a flow that it is over, where the kernel has no socket left that could say so.

What a SYN does to a peer that believes in the connection is in RFC 9293 section 3.5.1 and RFC 5961 section 4:
it says which number it expects next, and this host, which knows of no connection, answers with a reset of
exactly that number, the only one that a peer takes. So nothing has to be known about the connection.
"""

import errno
import logging
import socket

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.diversion import transparent
from marchproxy.dataplane.kernel.tcpsocket import enter_repair, leave_repair

log = logging.getLogger(__name__)


def hang_up(raw_key: bytes) -> None:
    """Have the sender of a TCP flow's packets reset its connection; `raw_key` is the packed `mp_flow_key`.

    To be called when the flow is gone. Needs CAP_NET_ADMIN, and does not wait. Where the SYN cannot be sent,
    or something on the way drops it, the peer learns of the end when it next speaks.
    """
    key = layouts.read_key(raw_key)
    local, peer = layouts.read_address(key.destination), layouts.read_address(key.source)
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            transparent(sock)
            # It has to be bound beside the listener whose port it has.
            enter_repair(sock)
            sock.bind((str(local), layouts.read_port(key.destination_port)))
            leave_repair(sock)
            code = sock.connect_ex((str(peer), layouts.read_port(key.source_port)))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, errno.errorcode.get(code, ""))
    except OSError as error:
        log.debug("%s is not told of the end of its connection: %s", peer, error.strerror)
