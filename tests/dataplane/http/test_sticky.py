"""Browsers that stay with one backend."""

import re
from collections import Counter
from typing import Any

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.sticky import Sticky
from marchproxy.policy.plan import Rule
from tests.dataplane.http.site import LAN, Backend, answer, ask, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

KEY = b"k" * 32


def rule(*drained: str, name: str = "m") -> Rule:
    plan = build.plan(
        LAN,
        service("web", "10.1.0.1", "10.1.0.2", "10.1.0.3", port=80, drain=list(drained)),
        mapping(name, "lan", "web", "192.0.2.1:80", "http", sticky=True),
    )
    return plan.listeners[0].rules[0]


def request(cookie: str = "") -> Request:
    fields = (("cookie", cookie),) if cookie else ()
    return Request("GET", "h", "h", "/", "/", fields, 0, "1.1")


def given(cookies: Sticky, made: Rule, number: int, key: bytes = KEY, *, secure: bool = False) -> str:
    assert made.pool is not None
    return cookies.cookie(made, request(), made.pool.backends[number], key, secure=secure)


def test_a_cookie_stands_for_the_backend_that_set_it() -> None:
    cookies, made = Sticky(), rule()
    assert made.pool is not None
    said = [given(cookies, made, number).partition(";")[0] for number in range(3)]
    assert len(set(said)) == 3
    for number, cookie in enumerate(said):
        backend = made.pool.backends[number]
        assert cookies.backend(made, request(f"a=b; {cookie}; c=d"), KEY) is backend
        assert Sticky().backend(made, request(cookie), KEY) == backend
        assert cookies.cookie(made, request(cookie), backend, KEY, secure=False) == ""
        assert "10.1" not in cookie


def test_http_2_sends_cookies_in_pieces() -> None:
    cookies, made = Sticky(), rule()
    cookie = given(cookies, made, 1).partition(";")[0]
    pieces = Request("GET", "h", "h", "/", "/", (("cookie", "a=b"), ("cookie", cookie)), 0, "2")
    assert made.pool is not None
    assert cookies.backend(made, pieces, KEY) is made.pool.backends[1]


def test_it_is_kept_from_scripts_and_other_sites() -> None:
    cookies, made = Sticky(), rule()
    assert given(cookies, made, 0).endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert given(cookies, made, 0, secure=True).endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")


def test_nobody_can_make_one() -> None:
    cookies, made = Sticky(), rule()
    name, _, value = given(cookies, made, 0).partition(";")[0].partition("=")
    others = (
        given(cookies, made, 0, b"x" * 32),
        given(cookies, rule(name="other"), 0),
        f"{name}={value[:-1]}",
        f"{name}={value}x",
        f"{name}=10.1.0.1:80",
        f"{name}=",
        f"{name.upper()}={value}",
        f"x{name}={value}",
    )
    for cookie in others:
        assert cookies.backend(made, request(cookie.partition(";")[0]), KEY) is None
    assert cookies.backend(made, request(f"{name}={value}"), b"") is None
    assert given(cookies, made, 0, b"") == ""


def test_a_backend_that_takes_no_requests_is_left() -> None:
    cookies, made = Sticky(), rule()
    cookie = given(cookies, made, 0).partition(";")[0]
    drained = rule("10.1.0.1")
    assert cookies.backend(drained, request(cookie), KEY) is None
    assert drained.pool is not None
    assert cookies.backend(drained, request(given(cookies, made, 1).partition(";")[0]), KEY)


@looped
async def test_requests_with_a_cookie_go_where_it_says_and_others_by_weight() -> None:
    two = Backend(answer(b"two"))
    async with (
        served(answer(b"one")) as (at, one),
        tcp_server(two.serve, "127.0.0.3") as two.port,
    ):
        fields: dict[str, Any] = {"weights": ["one=3", "two=1"], "sticky": True, "balance": "round-robin"}
        at.apply(
            build.plan(
                LAN,
                service("one", "127.0.0.2", port=one.port),
                service("two", "127.0.0.3", port=two.port),
                mapping("www", "lan", "one,two", f"127.0.0.1:{at.port}", "http", **fields),
            )
        )
        at.keys.book.cookie_key = KEY
        found: Counter[bytes] = Counter()
        cookies = {}
        for _ in range(8):
            [(head, body)] = await ask(at, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            found[body] += 1
            said = re.search("set-cookie: ([^;]*);", head)
            assert said
            cookies[body] = said[1]
        assert found == {b"one": 6, b"two": 2}
        for body, cookie in cookies.items():
            for _ in range(4):
                line = f"GET / HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\n\r\n".encode()
                [(head, got)] = await ask(at, line)
                assert got == body
                assert "set-cookie" not in head
