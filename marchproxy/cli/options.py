"""Options that several commands share."""

from typing import Annotated

import typer

from marchproxy.cli import suggest
from marchproxy.cli.output import Output
from marchproxy.model.names import DEFAULT_CLUSTER

OutputOption = Annotated[Output, typer.Option("--output", help="Print a table, JSON or YAML")]
ClusterOption = Annotated[
    str,
    typer.Option("--cluster", metavar="NAME", help="Use this cluster", autocompletion=suggest.clusters),
]
ForClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Cluster of a file that names none; default unless given",
        autocompletion=suggest.clusters,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask: say yes beforehand")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Block also what covers this session or the appliance itself")
]

CLUSTER = DEFAULT_CLUSTER
TABLE = Output.TABLE
