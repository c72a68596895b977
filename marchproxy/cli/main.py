"""The root command. The table below is all that `--help` needs; modules load when they are named."""

import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from marchproxy.cli.context import Environment, of_process
from marchproxy.cli.errors import ended
from marchproxy.cli.framework import LazyCommands, Noun, noun

PROGRAM = "marchproxy"

COMMANDS = {
    "init": "Create the store and print the API key of the default cluster",
    "cluster": "Manage clusters: isolated sets of services and mappings",
    "service": "Manage services: named sets of addresses",
    "mapping": "Manage mappings: who may talk to whom",
    "token": "Manage tokens: what clients of a service present",
    "cert": "Manage certificates: what listeners prove themselves by where they speak TLS",
    "interface": "Manage the network devices that the appliance attaches to",
    "listener": "Manage addresses and ports that the appliance itself serves",
    "limit": "Manage rate limits: what is beyond them is dropped",
    "block": "Manage blocks: addresses and names that nothing may come from or go to",
    "appliance": "Manage the settings of the appliance as a whole",
    "revision": "Look at the history and return to an earlier state",
    "apply": "Make the appliance equal to a file, or import a fleet file",
    "confirm": "Keep the change that would otherwise go back",
    "export": "Print everything that is configured, in a form that apply takes",
    "backup": "Write store, history, credentials and the key of secrets into one encrypted file",
    "restore": "Put a backup in the place of the store",
    "reset": "Return the appliance to the state of a fresh installation",
    "check": "Look for mistakes in what is configured",
    "diff": "Show what a file would change, or what the daemon has not taken over yet",
    "run": "Run the appliance in the foreground",
    "autostart": "Run this program at boot, as a service of systemd",
    "connect": "Connect stdin and stdout to a host, through a proxy or a listener that wants a token",
    "detach": "Take programs, pins and flows out of the kernel",
    "status": "Show whether the appliance serves, and how",
    "flows": "Show the conversations that are carried, or what was refused",
    "events": "Show what happens, as it happens, until Ctrl-C",
    "logs": "Show what the daemon has logged lately",
    "top": "Show who carries most right now, and what is refused most",
    "trace": "Ask the kernel live: latency, retransmits, drops",
    "capture": "Write packets to a file for Wireshark or tshark",
    "learn": "Learn from audit which mappings are missing",
    "doctor": "Look for what keeps the appliance from working",
    "explain": "Explain which mapping decides about a connection",
    "tui": "Look at the appliance and change it in the terminal",
    "version": "Show the version and what it runs on",
}
"""Name (of the module, too) and the first line of its help; a test holds the lines equal."""


class Root(Noun):
    """`marchproxy` itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands("marchproxy.cli", COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands from the table: their modules stay unloaded."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--show-completion` and `--install-completion` without a shell mean the one that is running."""
        if args and args[-1] in ("--show-completion", "--install-completion"):
            from marchproxy.cli.completion import current_shell

            args = [*args, current_shell(ctx.obj)]
        return super().parse_args(ctx, args)


app = noun("Say which service may talk to which; the kernel carries what is allowed and refuses the rest")
app.info.cls = Root


def _version(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from marchproxy.version import VERSION

        context.obj.stdout.write(f"{PROGRAM} {VERSION}\n")
        raise typer.Exit


def _show_completion(context: typer.Context, shell: str | None) -> None:
    if shell is not None and not context.resilient_parsing:
        from marchproxy.cli.completion import show

        show(context.obj, shell)
        raise typer.Exit


def _install_completion(context: typer.Context, shell: str | None) -> None:
    if shell is not None and not context.resilient_parsing:
        from marchproxy.cli.completion import install

        install(context.obj, shell)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit")
    ] = False,
    show_completion: Annotated[
        str | None,
        typer.Option(
            is_eager=True,
            callback=_show_completion,
            metavar="[SHELL]",
            help="Print the completion script of bash, zsh or fish",
        ),
    ] = None,
    install_completion: Annotated[
        str | None,
        typer.Option(
            is_eager=True,
            callback=_install_completion,
            metavar="[SHELL]",
            help="Install the completion of bash, zsh or fish for this user",
        ),
    ] = None,
) -> None:
    """The options of `marchproxy` before a command; each answers and exits."""


def run(arguments: Sequence[str] | None = None, environment: Environment | None = None) -> int:
    """Run one command line and return its exit code. No exception leaves this function."""
    environment = environment or of_process()
    args = list(sys.argv[1:] if arguments is None else arguments)
    return ended(environment, lambda: _invoke(environment, args))


def _invoke(environment: Environment, args: list[str]) -> object:
    command = get_command(app)
    question = environment.variables.get("_MARCHPROXY_COMPLETE")
    if question:
        from marchproxy.cli.completion import answer

        return answer(environment, command, question)
    environment.command = shlex.join([PROGRAM, *args])
    try:
        with command.make_context(PROGRAM, args, obj=environment) as context:
            return command.invoke(context)
    except typer.Exit as ending:
        return ending.exit_code
