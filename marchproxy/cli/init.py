"""`marchproxy init`: create the store."""

import typer

from marchproxy.cli import intent
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, show_one
from marchproxy.model.names import DEFAULT_CLUSTER

app = single()


@verb(app, "init", "marchproxy init", "MARCHPROXY_STATE_DIR=./state marchproxy init")
def init(context: typer.Context, output: OutputOption = TABLE) -> None:
    """Create the store and print the API key of the default cluster

    Where the store exists already, nothing is changed and no key is printed: only the key's hash is stored.
    The store is in MARCHPROXY_STATE_DIR, otherwise in /var/lib/marchproxy.
    """
    environment = environment_of(context)
    with intent.opened(environment, create=True) as store:
        created = store.created
        key = store.create_cluster_key(DEFAULT_CLUSTER) if created else None
    if output is not Output.TABLE:
        show_one(environment, output, {"name": DEFAULT_CLUSTER, "created": created, "api_key": key})
    elif key:
        environment.stdout.write(key + "\n")
    if key:
        environment.note(f"the API key of cluster {DEFAULT_CLUSTER} is shown this once: keep it")
    else:
        environment.note("the store exists already: nothing was changed")
