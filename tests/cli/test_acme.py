"""Certificates of a CA that speaks ACME: ordered at once, renewed in time, and no CA is bothered."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marchproxy.cli import certpull
from marchproxy.store.store import Store
from tests.cli.console import Console
from tests.client.acmeca import Ca, Reply, problem, serving
from tests.client.test_acmeresponder import free_port


@pytest.fixture(name="ca")
def _ca() -> Iterator[Ca]:
    with serving(Ca()) as ca:
        ca.port = free_port()
        yield ca


def words(ca: Ca, *more: str) -> tuple[str, ...]:
    listen = ("--challenge-listen", f"127.0.0.1:{ca.port}")
    return (
        "cert",
        "source",
        "web",
        "--acme",
        f"{ca.url}/directory",
        "--hosts",
        "www.example",
        *listen,
        *more,
    )


def fingerprint(site: Console) -> str:
    found: str = site.ok("cert", "show", "web", "--output", "json").json["fingerprint"]
    return found


def tries(site: Console) -> dict[str, Any]:
    """What is kept of orders that failed."""
    with Store.open(site.folder / "state", read_only=True) as store:
        [kept] = store.certificate_sources.every()
    found: dict[str, Any] = kept.document.get("tries", {})
    return found


def passed(site: Console, seconds: float) -> None:
    """Have what was noted be older."""
    with Store.open(site.folder / "state") as store:
        [kept] = store.certificate_sources.every()
        noted = kept.document["tries"]
        then = datetime.fromisoformat(noted["next"]) - timedelta(seconds=seconds)
        store.certificate_sources.note(kept, kept.document | {"tries": noted | {"next": then.isoformat()}})


def test_it_is_ordered_and_renewed_in_the_last_third_of_its_life(site: Console, ca: Ca) -> None:
    made = site.ok(*words(ca, "--contact", "admin@example.com"))
    assert "ordering a certificate for www.example" in made.err
    before = fingerprint(site)
    assert "another one" not in site.ok("cert", "pull").err
    assert ca.orders == 1
    ca.life = timedelta(minutes=20)
    site.ok("cert", "pull", "web", "--now")
    ca.life = timedelta(days=90)
    assert "certificate web of cluster default is another one now" in site.ok("cert", "pull").err
    site.ok("cert", "pull")
    assert ca.orders == 3
    assert fingerprint(site) != before
    assert len(ca.keys) == 1
    kept = b"".join(path.read_bytes() for path in (site.folder / "state").iterdir() if path.is_file())
    assert b"PRIVATE KEY" not in kept
    site.ok("cert", "source", "web", "--forget")


def test_a_ca_that_refuses_is_left_alone_for_longer_and_longer(site: Console, ca: Ca) -> None:
    ca.life = timedelta(minutes=20)
    site.ok(*words(ca))
    before = fingerprint(site)
    ca.twists["/newOrder"] = lambda _: problem(403, "unauthorized", "not today")
    first = site("cert", "pull")
    assert first.code == 1
    assert "unauthorized: not today" in first.err
    asked = len(ca.asked)
    again = site("cert", "pull")
    assert (again.code, len(ca.asked)) == (1, asked)
    assert "unauthorized: not today; the next order is begun at " in again.err
    assert tries(site)["count"] == 1
    passed(site, 3600)
    site("cert", "pull")
    assert tries(site)["count"] == 2
    ca.twists["/newOrder"] = lambda _: problem(429, "rateLimited", "later", **{"Retry-After": "7200"})
    site("cert", "pull", "--now")
    rest = datetime.fromisoformat(tries(site)["next"]) - datetime.now(UTC)
    assert timedelta(hours=1) < rest <= timedelta(hours=2)
    assert fingerprint(site) == before
    ca.twists.clear()
    site.ok("cert", "pull", "--now")
    assert tries(site) == {}
    assert fingerprint(site) != before


def test_so_many_orders_an_hour_and_no_more(site: Console, ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marchproxy.store.acmeaccounts.MOST_ORDERS", 2)
    site.ok(*words(ca))
    site.ok("cert", "pull", "web", "--now")
    refused = site("cert", "pull", "web", "--now")
    assert refused.code == 1
    assert "2 orders at http" in refused.err
    assert ca.orders == 2
    assert tries(site) == {}


def test_a_first_order_that_fails_leaves_its_account_and_nothing_else(site: Console, ca: Ca) -> None:
    ca.twists["/finalize"] = lambda _: Reply(500, b"oops")
    assert site(*words(ca)).code == 1
    assert site.ok("cert", "list", "--output", "json").json == []
    ca.twists.clear()
    site.ok(*words(ca))
    assert len(ca.keys) == 1


def test_terms_that_are_not_agreed_to(site: Console, ca: Ca) -> None:
    ca.meta = {"termsOfService": "https://ca.example/terms"}
    refused = site(*words(ca))
    assert refused.code == 1
    assert "https://ca.example/terms" in refused.err
    assert "--agree-terms" in refused.err
    assert not ca.keys
    site.ok(*words(ca, "--agree-terms"))


@pytest.mark.parametrize(
    "more", [("--hosts", "*.example.com"), ("--contact", "x"), ("--challenge-listen", ""), ("--key-id", "k")]
)
def test_what_cannot_be_meant_asks_nobody(site: Console, ca: Ca, more: tuple[str, ...]) -> None:
    refused = site(*words(ca, *more))
    assert refused.code == 5
    assert not ca.asked


def test_an_order_that_is_killed_is_begun_anew(site: Console, ca: Ca, tmp_path: Path) -> None:
    ca.life = timedelta(minutes=20)
    site.ok(*words(ca))
    before = fingerprint(site)
    process: list[subprocess.Popen[bytes]] = []

    def kill(_: Any) -> Reply:
        process[0].send_signal(signal.SIGKILL)
        process[0].wait()
        return Reply(200, b"")

    ca.twists["/finalize"] = kill
    command = [sys.executable, "-m", "marchproxy", "cert", "pull"]
    process.append(subprocess.Popen(command, env=os.environ | site.variables, stderr=subprocess.DEVNULL))
    assert process[0].wait(60) == -signal.SIGKILL
    ca.twists.clear()
    assert fingerprint(site) == before
    assert certpull._CUT_OFF in site("cert", "pull").err
    passed(site, 3600)
    site.ok("cert", "pull")
    assert fingerprint(site) != before
    assert tries(site) == {}
