"""sessions: a ticket opens where it was sealed for, for two hours, and says nothing to anybody else."""

import time
from datetime import timedelta

import pytest
from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.tls import CipherSuite, SessionTicket
from aioquic.tls import utcnow as now

from marchproxy.dataplane.quic.sessions import LIFETIME, Sessions

ONE, OTHER = b"1" * 32, b"2" * 32


def session() -> SessionTicket:
    return SessionTicket(
        age_add=7,
        cipher_suite=CipherSuite.AES_256_GCM_SHA384,
        not_valid_before=now(),
        not_valid_after=now() + timedelta(hours=1),
        resumption_secret=b"resumption secret of forty-eight bytes, as it is"[:48],
        server_name="a.example",
        ticket=b"",
    )


def test_a_ticket_opens_for_the_same_certificate_host_and_secret() -> None:
    began = session()
    ticket = Sessions(ONE, "site").seal(began, "a.example")
    assert began.resumption_secret not in ticket
    found = Sessions(ONE, "site").open(ticket, "a.example")
    assert found is not None
    again = found.session
    assert again.is_valid
    assert (again.resumption_secret, again.cipher_suite) == (began.resumption_secret, began.cipher_suite)
    assert (again.max_early_data_size, found.memo) == (None, b"")
    for sessions, host in (
        (Sessions(OTHER, "site"), "a.example"),
        (Sessions(ONE, "other"), "a.example"),
        (Sessions(ONE, "site"), "b.example"),
        (Sessions(ONE, "site"), ""),
    ):
        assert sessions.open(ticket, host) is None


def test_a_ticket_keeps_what_its_maker_wants_to_know() -> None:
    began = session()
    found = Sessions(ONE, "site").open(Sessions(ONE, "site").seal(began, "", b"memo" * 10), "")
    assert found is not None
    assert (found.memo, found.session.resumption_secret) == (b"memo" * 10, began.resumption_secret)
    assert Sessions.ticket().max_early_data_size is None
    assert Sessions.ticket(early=True).max_early_data_size == MAX_EARLY_DATA


def test_what_is_no_ticket_opens_nothing() -> None:
    sessions = Sessions(ONE, "site")
    ticket = sessions.seal(session(), "a.example")
    changed = [bytes([*ticket[:at], ticket[at] ^ 1, *ticket[at + 1 :]]) for at in range(len(ticket))]
    for wrong in (b"", b"x", ticket[:12], ticket[:20], ticket + b"x", bytes(500), *changed):
        assert sessions.open(wrong, "a.example") is None


@pytest.mark.parametrize(("later", "opens"), [(LIFETIME - 60, True), (LIFETIME + 60, False), (-60, False)])
def test_a_ticket_ends(monkeypatch: pytest.MonkeyPatch, later: float, opens: bool) -> None:
    sessions = Sessions(ONE, "site")
    ticket = sessions.seal(session(), "a.example")
    at = time.time() + later
    monkeypatch.setattr(time, "time", lambda: at)
    assert (sessions.open(ticket, "a.example") is not None) is opens
