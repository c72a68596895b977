"""The pages for operators say what is true of the commands."""

import re
import shlex
from pathlib import Path

import yaml

from marchproxy.cli.errors import ExitCode
from marchproxy.cli.proposal import propose
from marchproxy.model.snapshot import Cluster, Snapshot
from tests.cli.commands import commands, paths

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    *("USAGE.md", "TROUBLESHOOTING.md", "PROTECTION.md", "CREDENTIALS.md", "CERTIFICATES.md"),
    *("FILES.md", "LOGS.md", "INSTALL.md", "ENVIRONMENT.md", "HTTP.md", "HTTP3.md", "RESILIENCE.md"),
)
PAGE = "".join((DOCS / name).read_text() for name in PAGES)
README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_every_command_has_its_place() -> None:
    for noun, *verbs in paths():
        assert re.search(rf"marchproxy {noun}\b|`{noun}\b", PAGE), noun
        for verb in verbs:
            assert re.search(rf"{noun} (?:[a-z]+\\\|)*{verb}\b|`{verb}`", PAGE), (noun, verb)


def test_every_field_flag_has_its_place() -> None:
    for _, command in commands():
        for param in command.params:
            for flag in param.opts:
                if flag.startswith("--") and flag not in {"--help", "--verbose"}:
                    assert flag in PAGE, flag


def test_command_lines_name_commands_and_flags_that_exist() -> None:
    known = dict(commands())
    scripts = [block.replace("\\\n", " ") for page in (PAGE, README) for block in blocks(page, "sh")]
    lines = [line for script in scripts for line in script.splitlines()]
    ours = [line.removeprefix("sudo ").partition(" | ")[0] for line in lines]
    typed = [shlex.split(line, comments=True) for line in ours if line.startswith("marchproxy ")]
    assert len(typed) > 30
    for words in typed:
        name = " ".join(words[1:3]) if " ".join(words[1:3]) in known else words[1]
        if name.startswith("--"):
            continue
        flags = {flag for param in known[name].params for flag in (*param.opts, *param.secondary_opts)}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= flags, words


def test_exit_codes_are_the_enum() -> None:
    page = (DOCS / "USAGE.md").read_text()
    listed = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for code in row.split(",")
    }
    assert listed == set(ExitCode)


def test_the_files_shown_can_be_applied() -> None:
    lab = Snapshot((Cluster("default"),))
    files = [text for language in ("yaml", "json") for text in blocks(PAGE, language)]
    assert len(files) == 3
    for text in files:
        built = propose(yaml.safe_load(text), "FILES.md", None).build(lab)
        assert built.cluster("default") != lab.cluster("default")
