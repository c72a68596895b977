"""Which rule a request takes."""

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.model.entities import Mapping
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.conditions import Plain
from marchproxy.policy.evaluate import Answer, Evaluator, Query
from marchproxy.policy.plan import Plan
from marchproxy.policy.routes import Routes
from tests.clientcerts import ClientAuthority
from tests.policy.build import cluster, mapping, query, service, snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN = "192.0.2.1"
OFFICE = service("office", "10.0.0.0/16")
LAB = service("lab", "10.0.9.0/24")
SERVERS = [service(name, f"10.1.0.{number}", port=8080) for number, name in enumerate(("web", "api"), 1)]


def made(*mappings: Mapping, audit: bool = False) -> Plan:
    held = replace(cluster(OFFICE, LAB, *SERVERS, *mappings), audit=audit)
    return compile_plan(snapshot(held), now=NOW).plan


def web(name: str, host: str | None = None, path: str | None = None, **fields: object) -> Mapping:
    wanted: dict[str, Any] = {"sources": "office", "destinations": "web", "listen": f"{OWN}:80", **fields}
    sources, destinations = wanted.pop("sources"), wanted.pop("destinations")
    return mapping(name, sources, destinations, protocols="http", host=host, path_prefix=path, **wanted)


def ask(plan: Plan, host: str, path: str, source: str = "10.0.1.1") -> Answer:
    return Evaluator(plan).evaluate(replace(query(source, OWN), host=host, path=path))


def taken(plan: Plan, host: str, path: str, source: str = "10.0.1.1") -> str:
    return ask(plan, host, path, source).mapping


def test_exact_hosts_come_before_wildcards_and_these_before_none() -> None:
    plan = made(
        web("any", priority=1),
        web("below", "*.example.com", priority=2),
        web("deeper", "*.b.example.com", priority=3),
        web("exact", "a.b.example.com", priority=4),
    )
    assert taken(plan, "a.b.example.com", "/") == "exact"
    assert taken(plan, "x.b.example.com", "/") == "deeper"
    assert taken(plan, "b.example.com", "/") == "below"
    assert taken(plan, "x.y.example.com", "/") == "below"
    assert taken(plan, "example.com", "/") == "any"
    assert taken(plan, "", "/") == "any"


def test_longer_paths_come_first_and_end_with_segments() -> None:
    plan = made(web("root"), web("a", path="/a"), web("ab", path="/a/b/"), web("host", "h.example.com"))
    assert taken(plan, "x", "/a/b/c") == "ab"
    assert taken(plan, "x", "/a/b") == "ab"
    assert taken(plan, "x", "/a/bc") == "a"
    assert taken(plan, "x", "/ab") == "root"
    assert taken(plan, "h.example.com", "/a/b") == "host"


def test_of_equal_routes_the_first_by_precedence_wins() -> None:
    plan = made(web("late", path="/a"), web("early", path="/a", priority=5))
    assert taken(plan, "x", "/a") == "early"
    plan = made(web("allow", path="/a"), web("zdeny", path="/a", action="deny"))
    assert taken(plan, "x", "/a") == "zdeny"


def test_a_route_within_another_may_allow_what_that_denies() -> None:
    plan = made(web("all", action="deny"), web("public", path="/public"))
    assert ask(plan, "x", "/public/a").verdict is Verdict.ALLOW
    assert ask(plan, "x", "/private").reason is Reason.DENY_MAPPING


@pytest.mark.parametrize("path", ["/", "/a", "/a/b"])
def test_a_ban_that_was_meant_to_come_first_does(path: str) -> None:
    plan = made(web("a", "h.example.com", "/a"), web("rest"), web("ban", action="deny", priority=10))
    assert taken(plan, "h.example.com", path) == "ban"
    unlistened = mapping("ban", "office", "web", action="deny", priority=10)
    plan = made(web("a", "h.example.com", "/a"), web("rest"), unlistened)
    assert taken(plan, "h.example.com", path) == "ban"


def test_sources_tell_routes_apart() -> None:
    plan = made(web("lab", path="/a", sources="lab"), web("office", path="/"))
    assert taken(plan, "x", "/a", "10.0.9.1") == "lab"
    assert taken(plan, "x", "/a") == "office"
    assert ask(plan, "x", "/", "10.9.9.9").reason is Reason.NO_MAPPING


def test_what_no_route_fits_is_denied_and_audit_lets_it_through() -> None:
    routed = web("a", "h.example.com")
    assert ask(made(routed), "other.example.com", "/").reason is Reason.NO_MAPPING
    answer = ask(made(routed, audit=True), "other.example.com", "/")
    assert (answer.verdict, answer.reason) == (Verdict.AUDIT, Reason.NO_MAPPING)


def test_requests_are_read_where_somebody_looks_at_them_only() -> None:
    assert not made(web("plain")).admitted
    plan = made(web("plain"), web("routed", path="/a"))
    assert plan.admitted == {plan.listeners[0].key}
    assert Evaluator(plan).reading == plan.admitted


def test_who_does_not_speak_of_http_there_is_told() -> None:
    plan = made(web("routed", path="/a"), mapping("raw", "lab", "api", f"{OWN}:80"))
    assert [finding.message for finding in plan.findings if "HTTP" in finding.message] == [
        "reads HTTP requests, which raw does not speak of: it decides about requests"
    ]


def test_answers_know_the_query_s_route() -> None:
    plan = made(web("routed", path="/a"))
    asked = Query(query("10.0.1.1", OWN).source, query("10.0.1.1", OWN).destination, 80, None)
    assert asked.host == asked.path == ""
    assert ask(plan, "x", "").reason is Reason.NO_MAPPING


@pytest.mark.parametrize(
    "path", ["/admin%2Fx", "/%2Fadmin", "/admin%3Bv=1/x", "/a%252Fb/%2561", "/%2561dmin/x"]
)
def test_a_path_that_a_server_may_decode_to_another_rule_s_takes_none(path: str) -> None:
    plan = made(web("all"), web("admin", path="/admin", priority=1, action="deny"))
    assert taken(plan, "x", "/admin/x") == "admin"
    wanted = "all" if path.startswith("/a%25") else ""
    assert taken(plan, "x", path) == wanted
    assert taken(plan, "x", "/projects/group%2Fname") == "all"


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/%61dmin", "/admin"),
        ("//admin/", "/admin/x"),
        ("/caf\u00e9", "/caf%C3%A9/x"),
        ("/a%20b", "/a%20b/c"),
    ],
)
def test_prefixes_are_compared_in_the_form_of_paths(prefix: str, path: str) -> None:
    assert taken(made(web("all"), web("ban", path=prefix, action="deny")), "x", path) == "ban"


def asked(plan: Plan, line: str, *fields: tuple[str, str], host: str = "h") -> str:
    """The mapping for `METHOD TARGET`."""
    method, target = line.split()
    wanted = replace(query("10.0.1.1", OWN), host=host, path=target.partition("?")[0])
    return Evaluator(plan).evaluate(replace(wanted, method=method, target=target, fields=fields)).mapping


def test_more_conditions_come_before_fewer_and_only_those_that_are_met() -> None:
    plan = made(
        web("all"),
        web("posts", methods=["POST"]),
        web("beta", methods=["POST"], headers=["x-env: beta"]),
        web("deep", path="/api"),
        web("v2", path="/api", query=["v=2"]),
    )
    assert asked(plan, "GET /") == "all"
    assert asked(plan, "POST /") == "posts"
    assert asked(plan, "POST /", ("x-env", "beta")) == "beta"
    assert asked(plan, "GET /", ("x-env", "beta")) == "all"
    assert asked(plan, "POST /api/x", ("x-env", "beta")) == "deep"
    assert asked(plan, "POST /api/x?v=2") == "v2"


def test_what_the_most_specific_does_not_want_the_next_one_gets() -> None:
    plan = made(web("any"), web("host", "h", "/a", methods=["PUT"]), web("below", "*.h", headers=["x"]))
    assert asked(plan, "PUT /a") == "host"
    assert asked(plan, "GET /a") == "any"
    assert asked(plan, "GET /", host="a.h") == "any"
    assert asked(plan, "GET /", ("x", "1"), host="a.h") == "below"


def test_an_exact_path_comes_before_a_prefix_of_its_length() -> None:
    exact: dict[str, Any] = {"listen": f"{OWN}:80", "protocols": "http", "path": "/api"}
    plan = made(web("below", path="/api"), mapping("exact", "office", "web", **exact))
    assert asked(plan, "GET /api") == "exact"
    assert asked(plan, "GET /api/x") == asked(plan, "GET /api/") == "below"


def test_a_ban_takes_no_notice_of_a_slash_behind_its_path() -> None:
    ban: dict[str, Any] = {"listen": f"{OWN}:80", "protocols": "http", "path": "/metrics", "action": "deny"}
    plan = made(web("all"), mapping("ban", "office", "all", priority=10, **ban))
    assert asked(plan, "GET /metrics") == asked(plan, "GET /metrics/") == "ban"
    assert asked(plan, "GET /metrics/x") == "all"


def test_a_ban_with_conditions_wins_over_more_specific_routes() -> None:
    ban = web("ban", action="deny", destinations="all", priority=10, methods=["DELETE"], headers=["!x-admin"])
    plan = made(web("all", "h", "/api"), ban)
    assert asked(plan, "DELETE /api") == "ban"
    assert asked(plan, "POST /api", ("x-http-method-override", "DELETE")) == "ban"
    assert asked(plan, "DELETE /api", ("x-admin", "1")) == "all"
    assert asked(plan, "GET /api") == "all"


def test_methods_that_would_do() -> None:
    plan = made(
        web("reads", path="/a", methods=["GET"]),
        web("writes", path="/a", methods=["PUT"], headers=["x-key"]),
        web("never", path="/a", methods=["PATCH"], action="deny"),
    )
    [listener] = plan.listeners
    routes = Evaluator(plan).routes(listener, frozenset({"office"}))
    put, keyed = Plain("POST", "/a"), Plain("POST", "/a", (("x-key", "1"),))
    assert routes.methods("h", "/a", put) == ("GET", "HEAD")
    assert routes.methods("h", "/a/b", keyed) == ("GET", "HEAD", "PUT")
    assert routes.methods("h", "/b", keyed) == routes.methods("h", "/%61", keyed) == ()


def test_only_what_depends_on_more_than_host_and_path_is_asked_again() -> None:
    plan = made(web("all"), web("api", path="/api", methods=["POST"]))
    [listener] = plan.listeners
    routes = Evaluator(plan).routes(listener, frozenset({"office"}))
    assert routes.depends("h", "/api/x")
    assert not routes.depends("h", "/other")


def test_what_is_spoken_and_asked_for_is_known_of_all_rules_at_once() -> None:
    ours = ClientAuthority("ours").pem
    plan = made(
        web("a", "a.example", tls="one"),
        web("b", "b.example", tls="two", client_ca=ours),
        web("c", "*.example", tls="one"),
    )
    evaluator = Evaluator(plan)
    [listener] = plan.listeners
    found = evaluator.routes(listener, evaluator.sources.services(ip_address("10.0.1.1")))
    assert (found.certificates, found.asks) == (("one", "two"), True)
    assert (Routes().certificates, Routes().asks) == ((), False)
