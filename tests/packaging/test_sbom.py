"""What is said to be in the payload is in it, and what is in it is said."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from marchproxy.version import VERSION
from tests.packaging import building
from tests.repo.tree import ROOT

pytestmark = [pytest.mark.requires(commands=["patchelf", "strip"]), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def sbom(payload: Path) -> Any:
    return json.loads((payload / "share" / "marchproxy.cdx.json").read_text())


@pytest.fixture(scope="module")
def components(sbom: Any) -> dict[str, Any]:
    """By their references, files in packages included."""
    direct = sbom["components"]
    every = [*direct, *(inner for each in direct for inner in each.get("components", []))]
    assert len({each["bom-ref"] for each in every}) == len(every)
    return {each["bom-ref"]: each for each in every}


def test_its_head_is_cyclonedx(sbom: Any) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"], sbom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        sbom["serialNumber"],
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", sbom["metadata"]["timestamp"])
    assert sbom["metadata"]["component"]["version"] == VERSION
    assert sbom.keys() == {
        *("$schema", "bomFormat", "specVersion", "serialNumber", "version"),
        *("metadata", "components", "dependencies"),
    }


def test_every_component_says_what_and_under_which_terms(components: dict[str, Any]) -> None:
    for reference, each in components.items():
        assert each["type"] in {"library", "platform", "file"}
        assert each["name"], reference
        for digest in each.get("hashes", []):
            assert (digest["alg"], len(digest["content"])) == ("SHA-256", 64)
        if each["type"] != "file":
            assert each["purl"] == reference
            assert re.fullmatch(r"pkg:(pypi|deb/debian|generic)/[a-z0-9.%+BC-]+@[^@ ]+", reference)
            assert each["licenses"]
        for licence in each.get("licenses", []):
            assert licence.keys() in ({"expression"}, {"license"})
    assert not [each for each in components.values() if "not said" in json.dumps(each.get("licenses"))]


def test_who_needs_whom_names_components_alone(sbom: Any, components: dict[str, Any]) -> None:
    known = {*components, sbom["metadata"]["component"]["bom-ref"]}
    rows = {row["ref"]: row["dependsOn"] for row in sbom["dependencies"]}
    assert len(rows) == len(sbom["dependencies"])
    assert {*rows, *(each for needed in rows.values() for each in needed)} <= known
    # Nothing lies there that nobody needs.
    reached, new = set[str](), {sbom["metadata"]["component"]["bom-ref"]}
    while new:
        reached |= new
        new = {each for one in new for each in rows[one]} - reached
    assert {each["bom-ref"] for each in sbom["components"]} <= reached


def test_packages_are_those_of_the_lock_with_its_hashes(components: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    found = [each for each in components.values() if each["bom-ref"].startswith("pkg:pypi/")]
    assert len(found) > 30
    for each in found:
        assert f"\n{each['name']}=={each['version']}" in f"\n{lock}"
        assert f"sha256:{each['hashes'][0]['content']}" in lock


def test_every_file_with_code_for_the_processor_is_of_a_component(
    payload: Path, components: dict[str, Any]
) -> None:
    files = set(payload.glob("lib/*.so*")) | set((payload / "lib" / "fallback").iterdir())
    listed = {
        payload / name.removeprefix("file:"): each for name, each in components.items() if "lib/" in name
    }
    assert {path for path in files if not path.name.startswith("libpython")} == {
        path for path in listed if path.parent.name in {"lib", "fallback"}
    }
    for path, each in listed.items():
        if each["type"] == "file":
            assert sha256(path.read_bytes()).hexdigest() == each["hashes"][0]["content"]
    [objects] = payload.glob("lib/python3.*/site-packages/marchproxy/bpf/objects")
    for path in objects.glob("*.o"):
        assert (
            components[f"file:{path.name}"]["hashes"][0]["content"] == sha256(path.read_bytes()).hexdigest()
        )


def test_each_licence_has_its_text(payload: Path, components: dict[str, Any]) -> None:
    lines = (payload / "share" / "LICENSES.txt").read_text().splitlines()[2:]
    assert len(lines) == 1 + len(
        [each for each in components.values() if not each["name"].startswith("lib/")]
    )
    for line in lines:
        where = line.rpartition("(")[2].removesuffix(")")
        assert (Path(where) if where.startswith("/usr/share/common") else payload / where).is_file(), line


def test_a_package_that_is_in_no_lock_ends_the_build(payload: Path, tmp_path: Path) -> None:
    tree, said = tmp_path / "payload", "Name: stranger\nVersion: 1.0\n\n"
    site = tree / "lib" / "python3.13" / "site-packages"
    for name, text in (("stranger-1.0", said), ("marchproxy-1", said.replace("stranger", "marchproxy"))):
        (site / f"{name}.dist-info").mkdir(parents=True)
        (site / f"{name}.dist-info" / "METADATA").write_text(text)
    (tree / "lib" / "fallback").mkdir()
    (tree / "bin").mkdir()
    [program] = payload.glob("bin/python3.*")
    (tree / "bin" / program.name).symlink_to(program)
    (site.parent / "LICENSE.txt").touch()
    (tmp_path / "libraries").touch()
    done = building.run_sbom(tree, ROOT / "build" / "wheels", tmp_path / "libraries")
    assert done.returncode == 1
    assert done.stderr == "sbom: stranger 1.0 is in the payload, and not in requirements.lock\n"
