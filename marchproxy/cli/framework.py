"""The shape of every command: nouns, verbs, `-v`, help with examples, modules that load on demand.

Typer draws its help with rich, which costs 40 ms. Help is written here as plain text instead; it is also what
a script or a screen reader wants.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Fields

CHANGING = frozenset({"add", "set", "remove", "import", "apply", "rollback"})
"""Verbs that write a revision, of every noun that is part of one. They take `--confirm`."""

_LONGEST_TRIAL = 86_400
"""Seconds; the store has the same limit, and loading it for a number would cost 20 ms of every `--help`."""

type Command = TyperCommand | TyperGroup


def environment_of(context: typer.Context) -> Environment:
    """The environment of a running command."""
    environment: Environment = context.obj
    return environment


class Verb(TyperCommand):
    """A command that does something. Its epilog is examples, one a line, shown as they are typed."""

    fields: Fields = ()
    required: frozenset[str] = frozenset()
    revises: bool = False
    """Whether it writes a revision."""

    def __init__(self, name: str | None, *, params: list[Any] | None = None, **settings: Any) -> None:
        own = params or []
        arguments = [param for param in own if param.param_type_name == "argument"]
        options = [param for param in own if param.param_type_name == "option"]
        fields = [field.option(required=field.name in self.required) for field in self.fields]
        common = [*_trial_options(), _verbose_option()] if self.revises else [_verbose_option()]
        super().__init__(name, params=[*arguments, *fields, *options, *common], **settings)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples without wrapping them."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")


class Noun(TyperGroup):
    """A group of verbs. Named alone it shows its help on stderr and fails, since nothing was done."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help where no verb is given."""
        if not args and not ctx.resilient_parsing:
            environment_of(ctx).stderr.write(ctx.get_help() + "\n")
            raise typer.Exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)


def noun(text: str) -> typer.Typer:
    """An app for the verbs of one noun; `text` is its help."""
    return typer.Typer(help=text, cls=Noun, add_completion=False, rich_markup_mode=None)


def single() -> typer.Typer:
    """An app whose only command is the module's: `marchproxy status`."""
    return typer.Typer(add_completion=False, rich_markup_mode=None)


def verb[F: Callable[..., Any]](
    app: typer.Typer,
    name: str,
    *examples: str,
    fields: Fields = (),
    required: str = "",
    revises: bool = True,
) -> Callable[[F], F]:
    """Add a command to `app`. Its help is the function's docstring; each example is a whole command line.

    `fields` become flags of their own; the command finds what was given with `fields.given`. `required` names
    those that cannot be left out. `revises` False: its noun is part of no revision, whatever the verb.
    """
    own = {
        "fields": fields,
        "required": frozenset(required.split()),
        "revises": revises and name in CHANGING,
    }
    shape = type("Verb", (Verb,), own)
    return app.command(name, cls=shape, epilog="\n".join(examples))


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, each built from the `app` of the module of that name when it is first asked for."""

    def __init__(self, package: str, names: Mapping[str, str]) -> None:
        self._package = package
        self._names = names
        self._built: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._built:
            module = import_module(f"{self._package}.{name}")
            command = get_command(module.app)
            command.name = name
            self[name] = command  # type: ignore[assignment]  # get_command promises less than it returns
        return self._built[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _trial_options() -> tuple[TyperOption, ...]:
    return (
        TyperOption(
            param_decls=["trial", "--confirm"],
            type=int,
            metavar="SECONDS",
            expose_value=False,
            callback=_set_trial,
            help="Go back after this time, unless marchproxy confirm follows; needs a running daemon",
        ),
        TyperOption(
            param_decls=["no_wait", "--no-wait"],
            is_flag=True,
            default=False,
            show_default=False,
            expose_value=False,
            callback=_set_waiting,
            help="With --confirm: do not stay to count down",
        ),
    )


def _set_trial(context: Any, parameter: Any, value: int | None) -> None:
    if value is not None and not 1 <= value <= _LONGEST_TRIAL:
        raise typer.BadParameter(f"{value} is not in the range 1 to {_LONGEST_TRIAL}", context, parameter)
    if isinstance(context.obj, Environment):
        context.obj.trial = value


def _set_waiting(context: Any, parameter: Any, value: bool) -> None:
    if isinstance(context.obj, Environment):
        context.obj.waits = not value


def _verbose_option() -> TyperOption:
    return TyperOption(
        param_decls=["verbose", "-v", "--verbose"],
        type=int,
        count=True,
        default=0,
        show_default=False,
        expose_value=False,
        callback=_set_verbosity,
        help="Say more: -v what is done, -vv tracebacks, -vvv each step",
    )


def _set_verbosity(context: Any, parameter: Any, value: int) -> None:
    if isinstance(context.obj, Environment):
        context.obj.verbosity = value
