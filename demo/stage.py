"""What every scene uses."""

from dataclasses import dataclass

from demo.screen import Screen
from rig import Appliance, Rig


@dataclass(frozen=True, slots=True)
class Stage:
    """The hosts, the appliance, and where to show what happens."""

    rig: Rig
    appliance: Appliance
    screen: Screen

    def type(self, *words: str) -> None:
        """Type a command and show what it prints; it has to succeed."""
        self.screen.command("marchproxy", *words)
        result = self.appliance.cli(*words)
        self.screen.output(result.stdout + result.stderr)

    def start(self) -> None:
        """Start the daemon, in the background as a shell would have it."""
        self.screen.command("marchproxy", "run")
        self.appliance.start()
