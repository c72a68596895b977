"""`marchproxy detach`: take everything out of the kernel."""

import typer

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.client.control import Control
from marchproxy.model.errors import Conflict, DaemonNotRunning

app = single()


@verb(app, "detach", "marchproxy detach", "marchproxy detach --yes")
def detach(context: typer.Context, yes: YesOption = False, output: OutputOption = TABLE) -> None:
    """Take programs, pins and flows out of the kernel

    What a stopped daemon left in force ends here: conversations that were carried break off, and nothing is
    denied any more. A daemon that runs has to be stopped first. It asks first on a terminal; a script says
    --yes.
    """
    environment = environment_of(context)
    _refuse_beside_daemon(environment)
    intent.confirm(environment, "end all carried conversations and all denials", yes)
    removed = take_out()
    if output is Output.TABLE:
        show_lines(environment, (f"removed: {item}" for item in removed))
        if not removed:
            environment.note("there was nothing to take out")
    else:
        environment.stdout.write(serialise([{"name": item} for item in removed], output))


def take_out() -> list[str]:
    """Do it, and say what was removed. Raises `NotPermitted`."""
    from marchproxy.dataplane.kernel.attach import detach_all

    return detach_all()


def _refuse_beside_daemon(environment: Environment) -> None:
    try:
        status = Control(environment).get("/v1/status")
    except DaemonNotRunning:
        return
    if status["tier"]["name"] != "sockets":
        raise Conflict(
            f"the daemon with process {status['pid']} still runs and would attach again",
            hint=f"stop it first: systemctl stop marchproxy, or kill {status['pid']}",
        )
