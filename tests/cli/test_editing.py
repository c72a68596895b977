"""What `add`, `set` and `remove` have in common."""

import pytest

from tests.cli.console import Console

FLAGS = {
    "service": ["--address", "10.9.0.1"],
    "mapping": ["--from", "clients", "--to", "web", "--protocol", "tcp"],
    "interface": ["--role", "inside"],
}


@pytest.mark.parametrize("noun", FLAGS)
def test_twice_is_a_conflict(site: Console, noun: str) -> None:
    site.ok(noun, "add", "x", *FLAGS[noun])
    before = site.ok("export").out
    result = site(noun, "add", "x", *FLAGS[noun])
    assert result.code == 4
    assert f"{noun} 'x' exists already" in result.err
    assert site.ok("export").out == before


@pytest.mark.parametrize("noun", FLAGS)
@pytest.mark.parametrize(("typed", "gone"), [("y\n", True), ("n\n", False)])
def test_remove_asks_at_a_terminal(site: Console, noun: str, typed: str, gone: bool) -> None:
    site.ok(noun, "add", "x", *FLAGS[noun])
    result = site(noun, "remove", "x", stdin=typed, tty=True)
    assert f"remove {noun} x? [y/N]" in result.err
    assert result.code == (0 if gone else 1)
    names = [row["name"] for row in site.ok(noun, "list", "--output", "json").json]
    assert ("x" not in names) == gone


@pytest.mark.parametrize("noun", FLAGS)
def test_remove_refuses_without_anybody_to_ask(site: Console, noun: str) -> None:
    site.ok(noun, "add", "x", *FLAGS[noun])
    result = site(noun, "remove", "x")
    assert result.code == 2
    assert "--yes" in result.err
    site.ok(noun, "remove", "x", "--yes")


@pytest.mark.parametrize("noun", FLAGS)
def test_what_does_not_exist_is_not_asked_about(site: Console, noun: str) -> None:
    assert site(noun, "remove", "nothing").code == 3
    assert site(noun, "remove", "nothing", "--yes").code == 3


@pytest.mark.parametrize("noun", FLAGS)
def test_show_and_set_of_what_does_not_exist(site: Console, noun: str) -> None:
    assert site(noun, "show", "nothing").code == 3
    assert site(noun, "set", "nothing", *FLAGS[noun]).code == 3


@pytest.mark.parametrize("noun", ["service", "mapping"])
def test_set_without_flags_is_wrong_usage(site: Console, noun: str) -> None:
    result = site(noun, "set", "web")
    assert result.code == 2
    assert "nothing to change" in result.err


@pytest.mark.parametrize("noun", ["service", "mapping"])
def test_set_to_what_is_makes_no_revision(site: Console, noun: str) -> None:
    name = {"service": "web", "mapping": "cw"}[noun]
    site.ok(noun, "set", name, "--description", "x")
    assert "nothing to change: revision 3" in site.ok(noun, "set", name, "--description", "x").err


HOSTILE = {
    "empty": "",
    "blank": "  ",
    "control characters": "a\x1b[2Jb",
    "NUL": "a\x00b",
    "newline": "a\nb",
    "no UTF-8": "a\udcffb",
    "right to left": "a\u202eb",
    "path": "../../etc/passwd",
    "SQL": "x'; DROP TABLE service; --",
    "flag": "--",
    "a megabyte": "x" * 1_000_000,
    "other digits": "٣",
}


DEVICES = {"flag", "other digits"}
"""Not hostile as the name of a device: the kernel takes them."""


@pytest.mark.parametrize(
    ("noun", "name"),
    [
        pytest.param(noun, name, id=f"{noun}, {what}")
        for noun in FLAGS
        for what, name in HOSTILE.items()
        if noun != "interface" or what not in DEVICES
    ],
)
def test_hostile_names_are_refused_and_shown_harmlessly(site: Console, noun: str, name: str) -> None:
    before = site.ok("export").out
    result = site(noun, "add", *FLAGS[noun], "--", name)
    assert result.code in {2, 5}
    assert result.out == ""
    assert len(result.err) < 2000
    assert all(line.isprintable() for line in result.err.splitlines())
    assert site.ok("export").out == before


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "flag",
    [
        *("--address", "--port", "--tag", "--health", "--auth", "--collection"),
        *("--drain", "--health-interval", "--health-rise"),
    ],
)
def test_hostile_values_change_nothing(site: Console, flag: str, value: str) -> None:
    before = site.ok("export").out
    result = site("service", "set", "web", f"{flag}={value}")
    if value.strip() and flag != "--address":
        assert result.code == 5
    assert all(line.isprintable() for line in result.err.splitlines())
    after = site.ok("export").out
    assert after == before or value.strip() == ""


@pytest.mark.parametrize(
    "words",
    [
        *(f"appliance set --{flag}" for flag in ("audit", "refusal", "flow-table", "timeout-udp")),
        "appliance set --resolver",
        "appliance set --private-answer",
        "mapping set cw --audit",
        "mapping set cw --balance",
        "cluster set default --audit",
        "listener add dns --bind",
        "interface add eth0 --role outside --masquerade --nat-address",
    ],
)
def test_hostile_values_of_other_nouns_change_nothing(site: Console, words: str) -> None:
    before = site.ok("export").out
    for value in filter(str.strip, HOSTILE.values()):
        result = site(*f"{words}={value}".split(" ", words.count(" ")))
        assert result.code == 5, value
        assert len(result.err) < 2500
        assert all(line.isprintable() for line in result.err.splitlines())
    assert site.ok("export").out == before
