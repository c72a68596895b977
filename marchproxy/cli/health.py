"""The state of a service's backends, as the daemon's health checks know it."""

from typing import TYPE_CHECKING

from marchproxy.cli.context import Environment
from marchproxy.cli.output import Output
from marchproxy.cli.table import Row
from marchproxy.client import words
from marchproxy.client.control import Control
from marchproxy.model.errors import DaemonNotRunning
from marchproxy.model.names import qualify

if TYPE_CHECKING:
    # 40 ms of `status`, which has no use for it.
    from marchproxy.model.documents import Document


def with_backends(environment: Environment, document: "Document", output: Output) -> "Document":
    """The document of a service with `backends`: those that are checked or drained; null without a daemon."""
    if document["health"] == "none" and not document["drain"]:
        return {**document, "backends": []}
    try:
        states: list[Row] = Control(environment).get("/v1/status")["backends"]
    except DaemonNotRunning:
        environment.note("no daemon runs: the state of the backends is not known")
        return {**document, "backends": None}
    name = qualify(document["cluster"], document["name"])
    own = [state for state in states if state["service"] == name]
    return {**document, "backends": [sentence(state) if output is Output.TABLE else state for state in own]}


def condition(state: Row) -> str:
    """`up`, `down`, or `unchecked`; and whether it is drained."""
    found = "not checked yet" if state["check"] != "none" and not state["checked"] else str(state["state"])
    return f"{found}, drained" if state["drained"] else found


def place(state: Row) -> str:
    """Where it is; the address alone where it is pinged."""
    return words.place(state["address"], state["port"])


def sentence(state: Row) -> str:
    """All about one backend, on one line."""
    since = f" since {state['since']}" if state["checked"] else ""
    why = f": {state['why']}" if state["why"] else ""
    return f"{place(state)} {condition(state)}{since}{why}"
