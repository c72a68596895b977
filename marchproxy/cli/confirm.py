"""`marchproxy confirm`: keep the change that would otherwise go back."""

import typer

from marchproxy.cli import intent
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb

app = single()


@verb(app, "confirm", "marchproxy confirm")
def confirm(context: typer.Context) -> ExitCode:
    """Keep the change that would otherwise go back

    A change that was made with --confirm SECONDS goes back by itself at the end of that time. This keeps it;
    best from a new session, which shows that the appliance can still be reached. Exit code 3: nothing waits
    to be confirmed. 4: it is too late.
    """
    environment = environment_of(context)
    with intent.opened(environment) as store:
        trial = store.confirm()
    environment.note(f"revision {trial.revision} is confirmed")
    return intent.announce(environment)
