"""`marchproxy run`: the daemon."""

from typing import Annotated

import typer

from marchproxy.cli.framework import environment_of, single, verb

app = single()


@verb(
    app,
    "run",
    "marchproxy run",
    "marchproxy run --log-format json 2>>marchproxy.log",
    "MARCHPROXY_METRICS_LISTEN=127.0.0.1:9191 marchproxy run --no-bpf",
)
def run(
    context: typer.Context,
    no_bpf: Annotated[bool, typer.Option("--no-bpf", help="Carry traffic on sockets, slower")] = False,
    log_format: Annotated[
        str, typer.Option(metavar="FORMAT", help="How it logs: console (unless given) or json, a line each")
    ] = "",
) -> int:
    """Run the appliance in the foreground

    It logs to stderr (under systemd to the journal, with fields), and says when it is ready, to systemd too.
    SIGHUP makes it read the store again, SIGTERM ends it: what it carries on sockets gets time to finish, and
    programs and flows stay in the kernel until detach.

    MARCHPROXY_METRICS_LISTEN is where /metrics and /healthz listen (127.0.0.1:9090, or off), and
    MARCHPROXY_DRAIN_SECONDS how long connections get to finish (10). MARCHPROXY_WORKERS is how many processes
    listen to clients of the explicit proxy and of mappings with a credential (one for each processor; 0: the
    daemon itself). MARCHPROXY_LOG_FORMAT is the default of --log-format.
    """
    from marchproxy.dataplane import start
    from marchproxy.dataplane.options import RunOptions

    environment = environment_of(context)
    options = RunOptions.from_environment(
        environment.variables, no_bpf=no_bpf, verbosity=environment.verbosity, log_format=log_format
    )
    return start.run(options)
