"""What the target of a request says."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy.protocol.exchange import Speech, Unfit
from marchproxy.dataplane.proxy.protocol.http_head import Head
from marchproxy.dataplane.proxy.protocol.http_target import Target, check_hops, read_target


def target(method: str, text: str, host: str | None = None, version: str = "1.0") -> Target:
    return read_target(Head(method, text, version, () if host is None else (("Host", host),)))


def test_connect_names_host_and_port() -> None:
    assert target("CONNECT", "A.example:443") == Target(Speech.CONNECT, "a.example", 443)
    assert target("CONNECT", "[::1]:22").host == ip_address("::1")


def test_other_methods_have_a_url() -> None:
    assert target("GET", "http://a:8080?x=//b") == Target(Speech.FORWARD, "a", 8080, "/?x=//b")
    assert target("M-SEARCH", "hTTp://a/") == Target(Speech.FORWARD, "a", 80, "/")
    assert target("OPTIONS", "http://a/").origin == "/"
    assert target("OPTIONS", "http://a?").origin == "/?"


def test_host_agrees_with_the_target_or_is_silent() -> None:
    for host in ("A.Example", "a.example.", "a.example:81", None):
        assert target("GET", "http://a.example:81/", host).port == 81
    for host in ("b.example", "a.example:80", "", "a.example:81, b.example", "u@a.example"):
        with pytest.raises(Unfit):
            target("GET", "http://a.example:81/", host)
    with pytest.raises(Unfit, match="without the header Host"):
        target("GET", "http://a.example/", version="1.1")


def test_a_server_s_request_is_told_what_this_is() -> None:
    for text in ("/", "/x", "*"):
        with pytest.raises(Unfit, match="this is a proxy"):
            target("GET", text)
    with pytest.raises(Unfit, match="use CONNECT"):
        target("GET", "https://a/")


def test_hops_are_not_counted() -> None:
    check_hops(Head("GET", "http://a/", "1.1", (("Max-Forwards", "1"),)))
    with pytest.raises(Unfit):
        check_hops(Head("OPTIONS", "http://a/", "1.1", (("Max-Forwards", "1"),)))
