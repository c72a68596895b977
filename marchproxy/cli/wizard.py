"""First boot: a few questions, one summary, and from then on a gateway that reports what it would deny.

Nothing is written before the summary has been agreed to: until then Ctrl-C leaves the machine as it was.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from marchproxy.cli import unit
from marchproxy.cli.answers import BUILTIN, NONE, Answers, read_names, read_ports
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined
from marchproxy.cli.firstboot import Blocked, Done, Wish, block_list, martians, refuse_configured, write
from marchproxy.cli.questions import Questions
from marchproxy.client.session import ssh_session
from marchproxy.dataplane.machine import Device, devices
from marchproxy.model.documents import read_entity
from marchproxy.model.entities import Interface
from marchproxy.model.errors import Conflict, InvalidValue
from marchproxy.model.management import VARIABLE
from marchproxy.model.snapshot import Snapshot


class Wizard:
    """One run of it."""

    def __init__(self, environment: Environment, given: Answers, *, yes: bool) -> None:
        """`given` are answers from flags and file. With `yes` nobody is asked for the others."""
        self._environment = environment
        self._given = given
        self._yes = yes
        self._questions = Questions(environment, silent=yes)
        self._session = ssh_session(environment)
        self._managed = unit.is_managed(environment)

    def run(self) -> Done:
        """Ask, show, write, start. Raises `MarchproxyError`; then nothing is written, or all."""
        refuse_configured(self._environment)
        found = devices(self._session.client if self._session else None)
        if not found:
            raise Conflict("this machine has no network device but loopback")
        self._show(["This machine has", *map(_describe, found), ""])
        wish = self._ask(found)
        self._show(self._summary(wish, found))
        if not self._yes and not self._questions.agree("Write this", True, "--yes"):
            raise Declined("nothing was written")
        return write(self._environment, wish, managed=self._managed)

    def _ask(self, found: Sequence[Device]) -> Wish:
        given, questions = self._given, self._questions
        known = [device.name for device in found]
        outward = [device.name for device in found if device.default]

        def named(field: str, taken: Sequence[str] = (), *, least: int = 0) -> Any:
            def read(text: str) -> tuple[str, ...]:
                return _chosen(field, read_names(field, text), known, taken, least)

            return read

        inward = [device.name for device in found if device.up and device.name not in outward]
        inside = (
            _chosen("inside", given.inside, known, (), 1)
            if given.inside is not None
            else questions.ask(
                "Devices inside, towards clients",
                " ".join(inward) or None,
                named("inside", least=1),
                "--inside",
            )
        )
        outside = (
            _chosen("outside", given.outside, known, inside, 0)
            if given.outside is not None
            else questions.ask(
                "Devices outside, towards servers or the internet",
                " ".join(name for name in outward if name not in inside) or NONE,
                named("outside", inside),
                "--outside",
            )
        )
        masquerade = given.masquerade
        if masquerade is None:
            masquerade = bool(outside) and questions.agree(
                "Give what leaves outside the appliance's own address (masquerade)",
                any(name in outward for name in outside),
                "--masquerade",
            )
        blocked = (
            self._block_list(given.block_list, found)
            if given.block_list is not None
            else questions.ask(
                f"First block list: a file, {BUILTIN} (networks that nobody uses) or {NONE}",
                BUILTIN,
                lambda text: self._block_list(text, found),
                "--block-list",
            )
        )
        ports = given.management_ports or questions.ask(
            "TCP ports of this machine that always stay reachable, for you",
            " ".join(map(str, self._ports())),
            lambda text: read_ports("management_ports", text),
            "--management-port",
        )
        roles = [*((name, "inside") for name in inside), *((name, "outside") for name in outside)]
        return Wish(
            tuple([_interface(name, role, masquerade and role == "outside") for name, role in roles]),
            blocked,
            self._with_session(ports),
            given.start is not False,
        )

    def _ports(self) -> tuple[int, ...]:
        """What is guarded now, and the port of this session."""
        said = unit.read_variable(VARIABLE) if self._managed else None
        held = read_ports(VARIABLE, said) if said else sorted(self._environment.management_ports)
        return self._with_session(tuple(held))

    def _with_session(self, ports: tuple[int, ...]) -> tuple[int, ...]:
        """The port that somebody came in by is guarded, whatever they say: it would be their last answer."""
        own = self._session.port if self._session else None
        return tuple(sorted({*ports, own})) if own else ports

    def _block_list(self, text: str, found: Sequence[Device]) -> Blocked | None:
        """Raises what reading a file does, and `Conflict` where it covers the way to the operator."""
        if text == NONE:
            return None
        if text == BUILTIN:
            return martians(found, self._session)
        if text == "-":
            raise InvalidValue("block_list", text, "a file: stdin has the answers")
        from marchproxy.cli.blockfiles import read_file

        contents = read_file(self._environment, text, strict=False).contents
        blocked = block_list(PurePath(text).name.partition(".")[0], contents, PurePath(text).name)
        self._refuse_covering(blocked)
        return blocked

    def _refuse_covering(self, blocked: Blocked) -> None:
        from marchproxy.client.covered import refuse_new_blocks

        empty = Snapshot()
        wanted = replace(empty, block_lists=(blocked.item,))
        try:
            refuse_new_blocks(
                self._environment, empty, wanted, lambda _: {blocked.item.sha256: blocked.contents}
            )
        except Conflict as error:
            raise Conflict(error.message, hint="leave that out of the file, or take another one") from None

    def _summary(self, wish: Wish, found: Sequence[Device]) -> list[str]:
        known = {device.name: device for device in found}
        lines = ["", "This will be written:"]
        for interface in wish.interfaces:
            masquerade = ", masquerade" if interface.masquerade else ""
            lines.append(f"  {interface.role:<10} {_named(known[interface.name])}{masquerade}")
        item = wish.blocked.item if wish.blocked else None
        blocks = f"{item.name}, {item.entries} entries: dropped from now on" if item else NONE
        lines.append(f"  {'block list':<10} {blocks}")
        lines.append(f"  {'audit':<10} on: what no mapping allows is reported, and let through")
        lines.append(f"  {'guarded':<10} TCP {', '.join(map(str, wish.ports))} of this machine")
        if self._session:
            lines.append(f"  {'':<10} {self._session.client}, where you come from: nothing here blocks it")
        if wish.start and self._managed:
            lines.append(f"  {'service':<10} {unit.NAME} is started")
        return [*lines, ""]

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._environment.note(line)


def _chosen(
    field: str, names: Sequence[str], known: Sequence[str], taken: Sequence[str], least: int
) -> tuple[str, ...]:
    """The names, if they are devices, none of them taken. Raises `InvalidValue`."""
    for name in names:
        if name not in known:
            raise InvalidValue(field, name, f"one of {', '.join(known)}")
        if name in taken:
            raise InvalidValue(field, name, "a device that is not inside already")
    if len(names) < least:
        raise InvalidValue(field, NONE, f"one of {', '.join(known)}")
    return tuple(names)


def _interface(name: str, role: str, masquerade: bool) -> Interface:
    return read_entity(Interface, {"name": name, "role": role, "masquerade": masquerade})


def _describe(device: Device) -> str:
    marks = [] if device.up else ["down"]
    marks += ["the default route leaves by it"] if device.default else []
    marks += ["you are connected by it"] if device.session else []
    return f"  {_named(device)}{': ' if marks else ''}{', '.join(marks)}"


def _named(device: Device) -> str:
    return f"{device.name} ({', '.join(map(str, device.addresses)) or 'no address'})"
