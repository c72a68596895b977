"""`marchproxy init`."""

from tests.cli.console import Console


def test_the_key_is_printed_once(console: Console) -> None:
    first, second = console.ok("init"), console.ok("init")
    assert first.out.strip()
    assert "shown this once" in first.err
    assert second.out == ""
    assert first.out.strip() not in second.err


def test_as_a_document(console: Console) -> None:
    first = console.ok("init", "--output", "json").json
    assert first == {"name": "default", "created": True, "api_key": first["api_key"]}
    assert len(first["api_key"]) >= 32
    assert console.ok("init", "--output", "json").json == {
        "name": "default",
        "created": False,
        "api_key": None,
    }


def test_a_second_init_changes_nothing(site: Console) -> None:
    before = site.ok("export").out
    site.ok("init")
    assert site.ok("export").out == before


def test_without_it_every_command_says_what_to_do(console: Console) -> None:
    for words in (["service", "list"], ["export"], ["check"], ["revision", "list"], ["cluster", "add", "x"]):
        result = console(*words)
        assert result.code == 3
        assert "marchproxy init" in result.err
        assert result.out == ""
    assert not (console.folder / "state").exists()


def test_a_folder_that_is_a_file(console: Console) -> None:
    (console.folder / "state").write_text("something else")
    for words in (["init"], ["service", "list"]):
        result = console(*words)
        assert (result.code, result.out) == (1, "")
        assert "state' is not a folder" in result.err
        assert "MARCHPROXY_STATE_DIR" in result.err


def test_a_place_where_no_store_can_be(console: Console) -> None:
    (console.folder / "state" / "marchproxy.db").mkdir(parents=True)
    result = console("init")
    assert (result.code, result.out) == (1, "")
    assert "is not a file" in result.err
