"""`marchproxy tui`: the terminal front end."""

import gc
import shlex
import sys
from typing import Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.model.errors import Conflict

app = single()

PORT = 9191


@verb(app, "tui", "marchproxy tui", "marchproxy tui --read-only", "marchproxy tui --web --port 9191")
def tui(
    context: typer.Context,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only look: change nothing and cut nothing")
    ] = False,
    light: Annotated[bool, typer.Option("--light", help="Begin with the light theme")] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Serve it to a browser on this host; prints the address")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="With --web, the port on loopback", min=1, max=65535)
    ] = PORT,
) -> ExitCode:
    """Look at the appliance and change it in the terminal

    Overview, flows, top, denials, policy, protection and events have a tab each; ? shows the keys. Changes
    are shown as a difference before they are written, and can be tried for a minute. It works while the
    daemon is down, and goes on when it is back. NO_COLOR=1 does without colours. With --web the printed
    address opens it in a browser, until Ctrl-C; whoever has the address may do what you may.
    """
    # Commands are over before garbage matters; this may stay open for weeks.
    gc.enable()
    environment = environment_of(context)
    if web:
        return _serve(environment, port, read_only=read_only, light=light)
    # A browser's window is no terminal, and has a driver of its own.
    if not environment.interactive and not environment.variables.get("TEXTUAL_DRIVER"):
        raise WrongUsage("this needs a terminal", hint="marchproxy status and top show the same to scripts")
    from marchproxy.tui.app import MarchProxyApp
    from marchproxy.tui.link import Link

    MarchProxyApp(Link(environment, read_only=read_only), light=light).run()
    return ExitCode.DONE


def _serve(environment: Environment, port: int, *, read_only: bool, light: bool) -> ExitCode:
    from marchproxy.tui.web import HOST, GuardedServer

    # Where environment and working folder have no say in what we import, they have none there.
    isolated = ["-I"] if sys.flags.isolated else []
    words = [sys.executable, *isolated, "-m", "marchproxy", "tui"]
    words += ["--read-only"] if read_only else []
    words += ["--light"] if light else []
    server = GuardedServer(shlex.join(words), port)
    environment.stdout.write(f"{server.address}\n")
    environment.stdout.flush()
    environment.note("Ctrl-C ends it. From afar: ssh -L with this port, then the same address")
    try:
        server.serve()
    except OSError as error:
        message = f"{HOST}:{port} cannot be served: {error.strerror}"
        raise Conflict(message, hint="--port takes another") from None
    return ExitCode.DONE
