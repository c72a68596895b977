"""`marchproxy token`, as an operator uses it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.credentials.jws import read
from marchproxy.dataplane.credentials.signatures import verifier
from marchproxy.model.entities import JwtAlgorithm
from marchproxy.store.store import Store
from marchproxy.store.tokens import digest
from tests.cli.console import Answers, Console, Daemon
from tests.model.strategies import KEYS

RELOADED: Answers = {"POST /v1/reload": (200, {"revision": 7})}


@pytest.fixture
def town(site: Console) -> Console:
    """What `site` has, with services that want tokens and JWTs, and those of another issuer."""
    site.ok("service", "set", "web", "--auth", "token")
    site.ok("service", "add", "api", "--address", "10.3.0.1", "--auth", "jwt")
    document = site.write("key.json", KEYS["EdDSA"][0])
    site.ok("service", "add", "far", "--address", "10.3.0.2", "--auth", "jwt", "--jwt-key", document)
    return site


def opened(console: Console) -> Store:
    return Store.open(Path(console.variables["MARCHPROXY_STATE_DIR"]))


def listed(console: Console, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = console.ok("token", "list", *words, "--output", "json").json
    return found


def states(console: Console, *words: str) -> dict[int, str]:
    return {row["id"]: row["state"] for row in listed(console, *words)}


def test_issue_prints_a_token_and_nothing_else(town: Console) -> None:
    result = town.ok("token", "issue", "web")
    token = result.out.removesuffix("\n")
    assert len(token) == 43
    assert token not in result.err
    assert result.err == "token 1 of service web is shown this once: keep it\n"
    with opened(town) as store:
        assert [item.hash for item in store.credentials.tokens()] == [digest(token)]
    assert token not in town.ok("token", "list", "--output", "json").out
    assert token not in town.ok("export").out


def test_the_document_has_everything(town: Console) -> None:
    made = town.ok("token", "issue", "web", "--ttl", "2h", "--output", "json").json
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created", "expires"))
    assert expires - created == timedelta(hours=2)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
    own = {key: value for key, value in made.items() if key not in ("token", "created", "expires")}
    assert own == {
        "id": 1,
        "service": "web",
        "cluster": "default",
        "method": "token",
        "state": "active",
        **dict.fromkeys(("replaced", "revoked", "last_used", "jti")),
    }
    assert listed(town) == [{key: value for key, value in made.items() if key != "token"}]
    assert "token:" in town.ok("token", "issue", "web", "--output", "yaml").out


def test_for_a_service_with_jwt_it_is_one(town: Console) -> None:
    made = town.ok("token", "issue", "api", "--output", "json").json
    jwt = read(made["token"])
    assert (jwt.algorithm, jwt.audience, jwt.jti) == ("HS256", ("api",), made["jti"])
    assert datetime.fromtimestamp(jwt.expires, UTC) == datetime.fromisoformat(made["expires"])
    with opened(town) as store:
        secret = store.credentials.secrets().opened["api"]
    [(_, check)] = verifier(JwtAlgorithm.HS256, secret).checks
    assert check(jwt.signed, jwt.signature)


def test_rotate_leaves_an_overlap(town: Console) -> None:
    town.ok("token", "issue", "web")
    second = town.ok("token", "rotate", "web", "--overlap", "1h", "--output", "json").json
    assert states(town) == {1: "replaced", 2: "active"}
    ends = datetime.fromisoformat(listed(town)[0]["replaced"])
    assert ends - datetime.fromisoformat(second["created"]) == timedelta(hours=1)
    third = town.ok("token", "rotate", "web", "--overlap", "0", "--ttl", "90d").out
    assert len(third) == 44
    assert states(town) == {1: "expired", 2: "expired", 3: "active"}


def test_the_first_rotation_is_an_issue(town: Console) -> None:
    town.ok("token", "rotate", "web")
    assert states(town) == {1: "active"}


def test_revoke_takes_back_all_or_one(town: Console) -> None:
    for _ in range(3):
        town.ok("token", "issue", "web")
    town.ok("token", "issue", "api")
    assert town.ok("token", "revoke", "web", "--id", "2").err == "revoked: 2\n"
    assert states(town, "web") == {1: "active", 2: "revoked", 3: "active"}
    result = town.ok("token", "revoke", "web")
    assert (result.out, result.err) == ("", "revoked: 1, 3\n")
    assert states(town) == {1: "revoked", 2: "revoked", 3: "revoked", 4: "active"}
    nothing = town("token", "revoke", "web")
    assert (nothing.code, nothing.out) == (3, "")


def test_revoke_by_jti(town: Console) -> None:
    own = town.ok("token", "issue", "api", "--output", "json").json
    assert town.ok("token", "revoke", "api", "--jti", own["jti"]).err == "revoked: 1\n"
    town.ok("token", "revoke", "far", "--jti", "one", "--jti", "two")
    rows = [(row["service"], row["jti"], row["state"]) for row in listed(town)]
    assert rows == [("api", own["jti"], "revoked"), ("far", "one", "revoked"), ("far", "two", "revoked")]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["issue", "nowhere"], 3),
        (["issue", "web", "--cluster", "nowhere"], 3),
        (["issue", "clients"], 4),
        (["issue", "far"], 4),
        (["rotate", "far"], 4),
        (["issue", "web", "--ttl", "soon"], 5),
        (["issue", "web", "--ttl", "0"], 5),
        (["issue", "web", "--ttl", "99999d"], 5),
        (["rotate", "web", "--overlap", "366d"], 5),
        (["rotate", "web", "--overlap", "-1"], 5),
        (["revoke", "web", "--id", "7"], 3),
        (["revoke", "web", "--id", "x"], 2),
        (["revoke", "web", "--jti", "x"], 3),
        (["revoke", "api", "--jti", ""], 5),
        (["revoke", "nowhere"], 3),
        (["list", "nowhere"], 3),
        (["list", "--cluster", "nowhere"], 3),
        (["issue"], 2),
    ],
)
def test_what_cannot_be_done_changes_nothing(town: Console, words: list[str], code: int) -> None:
    result = town("token", *words)
    assert (result.code, result.out) == (code, ""), result
    assert "Traceback" not in result.err
    assert listed(town) == []


def test_clusters_have_their_own(town: Console) -> None:
    town.ok("cluster", "add", "lab")
    town.ok("service", "add", "web", "--address", "10.9.0.1", "--auth", "token", "--cluster", "lab")
    town.ok("token", "issue", "web")
    town.ok("token", "issue", "web", "--cluster", "lab")
    [own] = listed(town, "--cluster", "lab")
    assert (own["id"], own["service"], own["cluster"]) == (2, "web", "lab")
    assert [row["id"] for row in listed(town)] == [1]
    assert town("token", "revoke", "web", "--id", "1", "--cluster", "lab").code == 3


def test_the_table_says_when_they_end_and_were_used(town: Console) -> None:
    town.ok("token", "issue", "web", "--ttl", "30d")
    town.ok("token", "rotate", "web", "--overlap", "1h")
    used = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    with opened(town) as store:
        store.credentials.note_uses({2: used})
        replaced = store.credentials.tokens()[0].replaced
    assert replaced is not None
    title, first, second = town.ok("token", "list").out.splitlines()
    assert title.split() == ["ID", "SERVICE", "METHOD", "STATE", "CREATED", "ENDS", "LAST", "USED"]
    assert first.split()[-2:] == [replaced.isoformat().replace("+00:00", "Z"), "-"]
    assert second.split()[-2:] == ["-", "2030-01-02T03:04:05Z"]


def test_a_daemon_is_told_although_there_is_no_revision(
    town: Console, daemon: Callable[[Answers], Daemon]
) -> None:
    running = daemon(RELOADED)
    before = town.ok("revision", "list", "--output", "json").json
    for words in (["issue", "web"], ["rotate", "web"], ["revoke", "web"]):
        town.ok("token", *words)
    assert [what for what, _ in running.asked] == ["POST /v1/reload"] * 3
    assert town.ok("revision", "list", "--output", "json").json == before


def test_a_daemon_that_refuses_is_told_of_and_the_token_is_not_lost(
    town: Console, daemon: Callable[[Answers], Daemon]
) -> None:
    daemon({"POST /v1/reload": (409, {"error": {"name": "Conflict", "message": "no"}})})
    result = town("token", "issue", "web")
    assert result.code == 1
    assert len(result.out) == 44
    assert "stored, but not in force" in result.err


def test_tokens_go_with_their_service(town: Console) -> None:
    town.ok("mapping", "remove", "cw", "--yes")
    town.ok("token", "issue", "web")
    town.ok("service", "remove", "web", "--yes")
    assert listed(town) == []
    head = town.ok("revision", "list", "--output", "json").json[0]["number"]
    town.ok("revision", "rollback", str(head - 1), "--yes")
    assert town.ok("service", "show", "web", "--output", "json").json["auth"] == "token"
    assert listed(town) == []


def test_revoke_now_ends_what_the_tokens_have_opened(
    town: Console, daemon: Callable[[Answers], Daemon]
) -> None:
    town.ok("token", "issue", "web")
    jwt = read(town.ok("token", "issue", "api").out.strip())
    cut: Answers = {"POST /v1/flows/cut": (200, {"cut": 2, "unknown": []})}
    running = daemon({**RELOADED, **cut})
    assert "ended 2 tunnels" in town.ok("token", "revoke", "web", "--now").err
    town.ok("token", "revoke", "api", "--now")
    # First it is taken back, and then what it has opened ends: in between nothing is opened.
    assert running.asked == [
        ("POST /v1/reload", None),
        ("POST /v1/flows/cut", {"tokens": ["1"]}),
        ("POST /v1/reload", None),
        ("POST /v1/flows/cut", {"tokens": ["2", f"jti:{jwt.jti}"]}),
    ]
