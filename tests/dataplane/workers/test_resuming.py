"""Sessions of TLS: any worker resumes what another has begun, and so do those that take its place."""

import asyncio
import os
import signal
import socket
import ssl
import time
from typing import cast

import pytest

from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers.channel import Channel
from marchproxy.dataplane.workers.pool import WorkerPool
from marchproxy.dataplane.workers.worker import Worker
from tests.certificates import identity, keeper, trusting
from tests.dataplane.loops import looped, until
from tests.dataplane.workers.test_pool import NoCredentials, find, free_port
from tests.policy.build import mapping, plan, service


def shake(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bool, ssl.SSLSession]:
    """Whether the session went on, and the next one."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname="proxy.example", session=session) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
        # Tickets come behind the handshake.
        assert tls.recv(1)
        assert tls.session is not None
        return bool(tls.session_reused), tls.session


@looped
async def test_another_process_resumes_what_one_that_is_dead_began() -> None:
    port = free_port()
    pool = WorkerPool(1, find, cast(CredentialKeeper, NoCredentials()), keeper(identity()), None)
    pool.start(lambda event: None)
    made = mapping("m", "clients", "servers", f"127.0.0.1:{port}", "https", tls="proxy")
    served = plan(service("clients", "127.0.0.0/8"), service("servers", "127.0.0.1", port=1), made)
    pool.prepare(served).commit(1)
    try:
        client = trusting()
        reused, session = await asyncio.to_thread(shake, port, client)
        assert not reused
        [place] = pool._workers
        assert place._process is not None
        os.kill(place._process.pid, signal.SIGKILL)
        await until(lambda: not place.alive)
        place._not_before = 0.0

        def started() -> bool:
            pool.poll()
            return place.alive

        await until(started)
        reused, _ = await asyncio.to_thread(shake, port, client, session)
        assert reused
    finally:
        await pool.close()


@looped
async def test_all_are_told_of_another_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = WorkerPool(1, find, cast(CredentialKeeper, NoCredentials()), keeper(), None)
    told: list[object] = []
    monkeypatch.setattr(pool._workers[0], "say", told.append)
    pool.poll()
    told.clear()
    before, later = pool._tickets.secret, pool._tickets._ends
    monkeypatch.setattr(time, "monotonic", lambda: later)
    pool.poll()
    [message] = told
    assert isinstance(message, messages.Resume)
    assert message.secret == pool._tickets.secret != before
    assert message.secret.hex() not in repr(message)
    assert repr(message.secret) not in repr(message)
    await pool.close()


@looped
async def test_a_worker_makes_keys_of_what_it_is_told() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, lambda message, descriptors: None, lambda: None)
    worker = Worker(theirs)
    channel.say(messages.Resume(b"s" * 32))
    await until(lambda: worker._contexts._tickets.secret == b"s" * 32)
    channel.close()
    await worker._admission.close()
    worker._channel.close()
