"""Says what is in a payload: an SBOM (CycloneDX 1.6, JSON) and a list of licences, from what lies there.

    python packaging/sbom.py PAYLOAD WHEELS LIBRARIES

LIBRARIES has a line for each library that was copied from this machine: the name in the payload, and the path
here. What is in the payload and in no lock file, in another version, or of nobody whom we know, ends this
with an error: then the lists would not be true. See https://cyclonedx.org/docs/1.6/json/.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_LOCKED = re.compile(r"^([a-z0-9-]+)==([^ \\;]+)(.*?)(?=^[a-z]|\Z)", re.MULTILINE | re.DOTALL)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_CLASSIFIER = re.compile(r"^License :: (?:OSI Approved :: )?(.+)$")
_LICENCE = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
"""Of a machine-readable copyright file (DEP 5)."""
_OURS = "marchproxy"

type Component = dict[str, Any]
type Entry = tuple[Component, str]
"""A component, and where the text of its licence is in the payload."""


def main(tree: Path, wheels: Path, libraries: Path) -> None:
    """Write both lists into the payload."""
    [site] = tree.glob("lib/python3.*/site-packages")
    packages = {canonicalize_name(found["Name"]): found for found in metadata(site)}
    ours = packages.pop(canonicalize_name(_OURS))
    entries = [python(tree, site.parent), *shared(tree, libraries)]
    entries += [package(site, name, packages[name], wheels) for name in sorted(packages)]
    entries += kernel_objects(site)
    root = component(
        "application", _OURS, ours["Version"], f"pkg:pypi/{_OURS}@{ours['Version']}", spdx("AGPL-3.0-only")
    )
    share = tree / "share"
    write_json(share / f"{_OURS}.cdx.json", document(root, entries, depends(root, ours, packages, entries)))
    write_list(share / "LICENSES.txt", [(root, "share/LICENSE.md"), *entries])


def document(root: Component, entries: list[Entry], dependencies: list[dict[str, Any]]) -> dict[str, Any]:
    """The SBOM. Its serial number is that of its contents: the same payload has the same bytes."""
    components = [each for each, _ in entries]
    held = json.dumps([root, components, dependencies], sort_keys=True)
    when = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, hashlib.sha256(held.encode()).hexdigest()).urn,
        "version": 1,
        "metadata": {"timestamp": when.isoformat().replace("+00:00", "Z"), "component": root},
        "components": components,
        "dependencies": dependencies,
    }


def component(
    kind: str, name: str, version: str, purl: str, licences: list[Component], *, sha256: str = "", **more: Any
) -> Component:
    """One component."""
    made: Component = {"type": kind, "bom-ref": purl, "name": name, "version": version, "licenses": licences}
    made |= {"hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else {}
    return made | {"purl": purl} | more


def spdx(expression: str) -> list[Component]:
    """A licence by its expression (https://spdx.org/licenses/)."""
    return [{"expression": expression}]


def by_name(names: list[str]) -> list[Component]:
    """Licences that nobody has given an expression for."""
    return [{"license": {"name": name}} for name in dict.fromkeys(names)]


def metadata(site: Path) -> Iterator[Message]:
    """Of every package in there."""
    for file in sorted(site.glob("*.dist-info/METADATA")):
        yield HeaderParser().parsestr(file.read_text(encoding="utf-8"))


def package(site: Path, name: str, found: Message, wheels: Path) -> Entry:
    """A locked package, with the hash of the archive that it came in."""
    version = found["Version"]
    locked = LOCK.get(name)
    if locked is None or locked[0] != version:
        fail(f"{name} {version} is in the payload, and not in requirements.lock")
    archive = wheel_of(wheels, name, version)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest not in locked[1]:
        fail(f"{archive.name} has a hash that requirements.lock does not name")
    made = component(
        "library", name, version, f"pkg:pypi/{name}@{quote(version)}", licences_of(found), sha256=digest
    )
    [folder] = [
        path
        for path in site.glob("*.dist-info")
        if canonicalize_name(path.name.removesuffix(".dist-info").rpartition("-")[0]) == name
    ]
    texts = [
        path for path in sorted(folder.rglob("*")) if re.match(r"(?i)licen[cs]e|copying|notice", path.name)
    ]
    texts = [path for path in texts if path.is_file()]
    where = str(texts[0].relative_to(site.parents[2])) if texts else "none in its archive"
    return made, where


def licences_of(found: Message) -> list[Component]:
    """What the package says: an SPDX expression (PEP 639), else classifiers, else a line of text."""
    if found["License-Expression"]:
        return spdx(found["License-Expression"])
    classified = [
        match[1].strip()
        for line in found.get_all("Classifier", [])
        if (match := _CLASSIFIER.match(line)) and match[1] != "OSI Approved"
    ]
    said = (found["License"] or "").strip().splitlines()
    return by_name(classified or [said[0][:100] if said else "not said"])


def wheel_of(wheels: Path, name: str, version: str) -> Path:
    """The archive that set-up has fetched."""
    for path in sorted(wheels.glob("*.whl")):
        said = path.name.split("-")
        if canonicalize_name(said[0]) == name and said[1] == version:
            return path
    fail(f"{wheels} has no archive of {name} {version}")


def python(tree: Path, library: Path) -> Entry:
    """CPython itself."""
    [program] = tree.glob("bin/python3.*")
    asked = "import platform; print(platform.python_version())"
    version = subprocess.check_output([program, "-I", "-c", asked], text=True).strip()
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    purl = f"pkg:generic/cpython@{version}"
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    made = component("platform", "cpython", version, purl, spdx("PSF-2.0"), sha256=digest, cpe=cpe)
    return made, str((library / "LICENSE.txt").relative_to(tree))


def shared(tree: Path, libraries: Path) -> Iterator[Entry]:
    """The system's libraries in the payload, by the Debian package that each came from."""
    origins = dict(line.split("\t") for line in libraries.read_text().splitlines())
    held: dict[str, list[Path]] = {}
    for file in sorted([*(tree / "lib").glob("*.so*"), *(tree / "lib" / "fallback").iterdir()]):
        name = str(file.relative_to(tree / "lib"))
        if file.name.startswith("libpython"):
            continue
        if name not in origins:
            fail(f"nothing says where lib/{name} came from")
        held.setdefault(owner(Path(origins[name])), []).append(file)
    for name in sorted(held):
        yield debian(tree, held[name], name)


def owner(path: Path) -> str:
    """The Debian package that a file is of."""
    for candidate in (path, path.resolve(), Path(str(path.resolve()).removeprefix("/usr"))):
        done = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.rpartition(": ")[0].split(", ")[0]
    fail(f"{path} is of no package of this machine")


def debian(tree: Path, files: list[Path], package_name: str) -> Entry:
    """Libraries of one package of Debian; the text of its licence is copied."""
    form = "${source:Package}\t${Version}\t${Architecture}"
    asked = subprocess.check_output(["dpkg-query", "-W", "-f", form, package_name], text=True)
    source, version, architecture = asked.split("\t")
    name = package_name.partition(":")[0]
    text = Path("/usr/share/doc") / name / "copyright"
    if not text.exists():
        fail(f"{text} is missing: this machine keeps no licences")
    target = tree / "share" / "licenses" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(text, target)
    named = _LICENCE.findall(text.read_text(encoding="utf-8", errors="replace"))
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
    made = component(
        "library",
        name,
        version,
        purl,
        by_name([each.strip() for each in named] or [f"see share/licenses/{name}"]),
        properties=[{"name": "debian:source", "value": source}],
        components=[contained(tree, file) for file in files],
    )
    return made, str(target.relative_to(tree))


def contained(tree: Path, file: Path) -> Component:
    """One file of a package, as it lies in the payload: stripped, and with another search path."""
    name = str(file.relative_to(tree))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def kernel_objects(site: Path) -> list[Entry]:
    """The programs for the kernel, which have a licence of their own."""
    entries: list[Entry] = []
    for file in sorted((site / _OURS / "bpf" / "objects").glob("*.bpf.o")):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        made = component("file", file.name, digest[:12], "", spdx("GPL-2.0-only"), sha256=digest)
        del made["purl"]
        entries.append((made | {"bom-ref": f"file:{file.name}"}, "/usr/share/common-licenses/GPL-2"))
    return entries


def depends(
    root: Component, ours: Message, packages: dict[Any, Message], entries: list[Entry]
) -> list[dict[str, Any]]:
    """Who needs whom. What is no Python package is needed by the whole."""
    reference = {name: f"pkg:pypi/{name}@{quote(found['Version'])}" for name, found in packages.items()}
    extras = extras_asked_for([ours, *packages.values()])

    def needed(found: Message) -> list[str]:
        asked = wanted(found, extras.get(canonicalize_name(found["Name"]), set()))
        names = {canonicalize_name(each.name) for each in asked}
        return sorted(reference[name] for name in names if name in reference)

    beside = [made["bom-ref"] for made, _ in entries if not made["bom-ref"].startswith("pkg:pypi/")]
    rows = [{"ref": root["bom-ref"], "dependsOn": sorted({*needed(ours), *beside})}]
    rows += [{"ref": reference[name], "dependsOn": needed(packages[name])} for name in sorted(packages)]
    return rows + [{"ref": each, "dependsOn": []} for each in sorted(set(beside))]


def wanted(found: Message, extras: set[str]) -> list[Requirement]:
    """What a package asks for on a machine like this one, with those extras."""
    asked = [Requirement(line) for line in found.get_all("Requires-Dist", [])]
    return [
        each
        for each in asked
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def extras_asked_for(every: list[Message]) -> dict[str, set[str]]:
    """By package: the extras that others ask of it, `markdown-it-py[linkify]`."""
    extras: dict[str, set[str]] = {}
    for found in every:
        for each in wanted(found, set()):
            extras.setdefault(canonicalize_name(each.name), set()).update(each.extras)
    return extras


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Pretty, for people look at it, too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_list(file: Path, entries: list[Entry]) -> None:
    """A line for each: what, in which version, under which licence, and where that is."""
    lines = ["What is in here, and under which licence; where its text is, from /usr/lib/marchproxy on.", ""]
    for made, where in entries:
        terms = "; ".join(each.get("expression") or each["license"]["name"] for each in made["licenses"])
        lines.append(f"{made['name']} {made['version']}: {terms} ({where})")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def locked_packages(lock: Path) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of each package."""
    return {
        name: (version, set(_HASH.findall(rest)))
        for name, version, rest in _LOCKED.findall(lock.read_text(encoding="utf-8"))
    }


def fail(text: str) -> NoReturn:
    """Say it, and end."""
    sys.exit(f"sbom: {text}")


LOCK = locked_packages(ROOT / "requirements.lock")

if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
