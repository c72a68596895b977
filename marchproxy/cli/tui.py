"""`marchproxy tui`: the terminal front end."""

from typing import Annotated

import typer

from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, single, verb

app = single()


@verb(app, "tui", "marchproxy tui", "marchproxy tui --read-only")
def tui(
    context: typer.Context,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only look: change nothing and cut nothing")
    ] = False,
    light: Annotated[bool, typer.Option("--light", help="Begin with the light theme")] = False,
) -> ExitCode:
    """Look at the appliance and change it in the terminal

    Overview, flows, denials, policy, protection and events have a tab each; ? shows the keys. Changes are
    shown as a difference before they are written, and can be tried for a minute. It works while the daemon is
    down, and goes on when it is back. NO_COLOR=1 does without colours.
    """
    environment = environment_of(context)
    if not environment.interactive:
        raise WrongUsage("this needs a terminal", hint="marchproxy status and top show the same to scripts")
    from marchproxy.tui.app import MarchProxyApp
    from marchproxy.tui.link import Link

    MarchProxyApp(Link(environment, read_only=read_only), light=light).run()
    return ExitCode.DONE
