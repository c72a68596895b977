"""Which appliance is meant."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_RUNTIME_DIR = "/run/marchproxy"


@dataclass(slots=True)
class Appliance:
    """The one that the environment's variables name: its store, its daemon's socket, who the operator is."""

    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    command: str = "marchproxy"
    """The command line as it was typed, for hints that repeat it."""

    @property
    def state_dir(self) -> Path | None:
        """`MARCHPROXY_STATE_DIR`; None: wherever the store's own settings say, `DATABASE_URL` for one."""
        from marchproxy.store.location import state_dir

        return state_dir(self.variables)

    @property
    def control_socket(self) -> Path:
        """The daemon's control socket, below `MARCHPROXY_RUNTIME_DIR`."""
        return Path(self.variables.get("MARCHPROXY_RUNTIME_DIR") or DEFAULT_RUNTIME_DIR) / "control.sock"

    @property
    def management_ports(self) -> frozenset[int]:
        """TCP ports of the host that no mapping may take over. Raises `InvalidValue`."""
        from marchproxy.model.management import read_management_ports

        return read_management_ports(self.variables)

    def detail(self, text: str) -> None:
        """Something that only the curious are told."""

    def debug(self, text: str) -> None:
        """The same, for those who look for a defect."""
