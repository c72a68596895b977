"""What refusals of the operating system mean to an operator, and to the counters."""

import errno
import os
import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy import sockets
from marchproxy.model.errors import Conflict, MarchproxyError, NotPermitted
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Listener
from tests.dataplane.plans import listener, rule
from tests.dataplane.proxy.peers import free_port

PRIVILEGED = "ports below 1024 need CAP_NET_BIND_SERVICE"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), Reason.UPSTREAM_TIMEOUT),
        (OSError(errno.ETIMEDOUT, ""), Reason.UPSTREAM_TIMEOUT),
        (OSError(errno.ECONNREFUSED, ""), Reason.UPSTREAM_REFUSED),
        (OSError(errno.ECONNRESET, ""), Reason.UPSTREAM_REFUSED),
        (OSError(errno.EHOSTUNREACH, ""), Reason.NO_ROUTE),
        (OSError(errno.ENETUNREACH, ""), Reason.NO_ROUTE),
        (OSError(errno.EADDRNOTAVAIL, ""), Reason.NO_NAT_PORT),
        (OSError(errno.EMFILE, ""), Reason.FLOW_TABLE_FULL),
        (OSError(errno.EMSGSIZE, ""), Reason.TOO_BIG),
    ],
)
def test_a_failed_connection_has_the_kernel_tiers_reason(error: OSError, reason: Reason) -> None:
    assert sockets.refusal_reason(error) is reason


@pytest.mark.parametrize(
    ("port", "code", "kind", "said"),
    [
        (80, errno.EACCES, NotPermitted, f"this user may not open it: {PRIVILEGED}"),
        (1023, errno.EPERM, NotPermitted, f"this user may not open it: {PRIVILEGED}"),
        (1024, errno.EPERM, NotPermitted, "this user may not open it"),
        (80, errno.ENOMEM, MarchproxyError, "Cannot allocate memory"),
    ],
)
def test_a_refused_listener_says_which_and_why(
    monkeypatch: pytest.MonkeyPatch, port: int, code: int, kind: type[MarchproxyError], said: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sockets, "_receive", refuse)
    with pytest.raises(kind) as caught:
        sockets.open_listener(listener(port, rule()))
    assert caught.value.message == f"listener 127.0.0.1:{port}/tcp: {said}"


def test_a_zone_is_no_part_of_an_address() -> None:
    assert sockets.address_of("fe80::1%eth0") == ip_address("fe80::1")


def test_an_ipv6_wildcard_leaves_ipv4_to_others() -> None:
    six = sockets.open_listener(listener(0, rule(), address="::"))
    port = six.getsockname()[1]
    four = sockets.open_listener(listener(port, rule(), address="0.0.0.0"))
    assert four.getsockname()[1] == port
    six.close()
    four.close()


def test_reset_is_seen_as_a_reset() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        far, _ = server.accept()
        sockets.reset(far)
        with pytest.raises(ConnectionResetError):
            near.recv(1)


def test_backends_are_connected_without_delay() -> None:
    with sockets.connected_socket(ip_address("127.0.0.1"), Transport.TCP) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getblocking() is False


@pytest.mark.requires("root")
def test_a_listener_of_a_device_is_for_what_comes_in_there() -> None:
    with sockets.open_listener(listener(0, rule()), device="lo") as bound:
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).startswith(b"lo")
        with socket.create_connection(bound.getsockname(), 5):
            pass
    with pytest.raises(MarchproxyError, match="No such device"):
        sockets.open_listener(listener(0, rule()), device="mp-none0")


def test_a_free_port_is_looked_at_and_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        wanted = listener(other.getsockname()[1], rule())
        with pytest.raises(Conflict, match="another program has this address and port"):
            sockets.expect_free(wanted)
    sockets.expect_free(wanted)
    with sockets.open_listener(wanted):
        # Our own are in nobody's way.
        sockets.expect_free(listener(wanted.port, rule(), address="0.0.0.0"))


def test_so_many_listeners_that_connections_would_want_for_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (4096, 4096))
    sockets.expect_descriptors(1024)
    with pytest.raises(MarchproxyError, match="1025 listeners want a socket each"):
        sockets.expect_descriptors(1025)


def test_a_group_begins_where_no_socket_of_ours_is() -> None:
    """Or its numbers would be others when that one closes."""
    wanted = Listener(ip_address("127.0.0.1"), free_port(), Transport.UDP, ())
    with sockets.open_listener(wanted), pytest.raises(Conflict, match="a mapping of ours"):
        sockets.open_group(wanted, 2)
    group = sockets.open_group(wanted, 2)
    try:
        assert [each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for each in group] == [1, 1]
        # And another listener may come to its port for a moment, as at the change of a plan.
        with sockets.open_listener(wanted):
            pass
        assert [each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for each in group] == [1, 1]
    finally:
        for each in group:
            each.close()
