"""`marchproxy export`: everything that is configured, in a form that `apply` takes."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.output import to_yaml
from marchproxy.client import edits
from marchproxy.model.snapshot import Snapshot

app = single()


class Form(StrEnum):
    """What a document can be written as."""

    JSON = "json"
    YAML = "yaml"


@verb(
    app,
    "export",
    "marchproxy export > everything.json",
    "marchproxy export --cluster lab --output yaml > lab.yaml",
    "marchproxy export | sha256sum",
)
def export(
    context: typer.Context,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="NAME", help="Only this one", autocompletion=suggest.clusters),
    ] = None,
    output: Annotated[Form, typer.Option("--output", help="Print JSON or YAML")] = Form.JSON,
) -> None:
    """Print everything that is configured, in a form that apply takes

    JSON is canonical: its SHA-256 is what revision list shows, and applying it changes nothing. With
    --cluster what belongs to the appliance (interfaces, limits, settings …) is left out, so that applying it
    elsewhere leaves that alone.
    """
    environment = environment_of(context)
    snapshot = intent.read(environment)
    document = snapshot.document()
    if cluster is not None:
        [only] = Snapshot((edits.cluster_of(snapshot, cluster),)).document()["clusters"]
        document = {"format": document["format"], "clusters": [only]}
    if output is Form.YAML:
        environment.stdout.write(to_yaml(document))
    elif cluster is None:
        environment.stdout.write(snapshot.canonical().decode())
    else:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        environment.stdout.write(text + "\n")
