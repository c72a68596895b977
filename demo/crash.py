"""The scene in which the daemon is killed in the middle of a download."""

import threading
import time

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from demo.actors import Actor, expect, knock
from demo.stage import Stage
from rig import wait_for
from rig.network import LISTEN4
from rig.payload import digest
from rig.traffic import HTTP, fetch

GUEST = "10.1.0.99"
TRANSFER = 150_000_000
"""Bytes of the download during which the daemon is killed."""
PACE = 50_000_000
"""Bytes a second that its client takes, so that there is time to look."""
HELD_BACK = 0.8
"""Share after which the client waits until the daemon is back, so that both daemons see the conversation."""


class Transfer(threading.Thread):
    """A download at a steady pace that can be watched, and held back before its end."""

    def __init__(self, stage: Stage) -> None:
        """Of `TRANSFER` bytes, by the office from the web service."""
        super().__init__(name="transfer")
        self.arrived = 0
        self.hash = ""
        self.go_on = threading.Event()
        self._stage = stage

    def run(self) -> None:
        """Download in the client host."""
        self._stage.rig.client.call(self._download)

    def _download(self) -> None:
        self._began = time.monotonic()
        try:
            with HTTP(LISTEN4, 80) as connection:
                self.hash = connection.download(TRANSFER, self._progress)
        except OSError as error:
            self.hash = f"broken off: {error}"

    def _progress(self, arrived: int) -> None:
        self.arrived = arrived
        if arrived > HELD_BACK * TRANSFER:
            self.go_on.wait()
        ahead = arrived / PACE - (time.monotonic() - self._began)
        if ahead > 0:
            time.sleep(ahead)


def survive(stage: Stage) -> None:
    """The daemon dies in the middle of a transfer, and comes back."""
    stage.screen.heading("The daemon is killed in the middle of a download")
    columns = (TextColumn("download"), BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn())
    transfer = Transfer(stage)
    console = stage.screen.console
    with Progress(
        *columns, console=console, transient=True, expand=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("download", total=TRANSFER)

        def until(share: float) -> None:
            def reached() -> bool:
                bar.update(task, completed=transfer.arrived)
                return transfer.arrived >= share * TRANSFER or not transfer.is_alive()

            wait_for(reached, f"{share:.0%} of the download", timeout=20)

        transfer.start()
        try:
            until(0.2)
            kill(stage)
            without_daemon(stage, transfer)
            until(0.6)
            come_back(stage)
            transfer.go_on.set()
            until(1)
        finally:
            transfer.go_on.set()
            transfer.join()
    expect(transfer.hash == digest(TRANSFER), f"the download is damaged: {transfer.hash}")
    stage.screen.right(f"{TRANSFER / 1e6:.0f} MB arrived, SHA-256 {transfer.hash[:16]}… as it should be")


def kill(stage: Stage) -> None:
    """As a crash would."""
    daemon = stage.appliance.json("status", check=False)["pid"]
    stage.screen.command("kill", "-9", str(daemon))
    stage.appliance.kill9()
    stage.screen.command("marchproxy", "status")
    result = stage.appliance.cli("status", check=False)
    stage.screen.output(result.stderr)
    expect(result.returncode == 6, f"status ended with {result.returncode}, not with 6 for no daemon")


def without_daemon(stage: Stage, transfer: Transfer) -> None:
    """What the kernel does alone."""
    client, before = stage.rig.client, transfer.arrived
    client.call(fetch, LISTEN4, 80)
    stage.screen.right("no daemon, and a new connection of the office is carried")
    with Actor(client, "http from the guest without a daemon", knock(LISTEN4, GUEST)) as actor:
        wait_for(lambda: actor.done or not actor.running, "the guest to be refused")
    stage.screen.right("no daemon, and the guest is still refused")
    wait_for(lambda: transfer.arrived > before, "the download to go on")
    stage.screen.right("no daemon, and the download goes on")


def come_back(stage: Stage) -> None:
    """A new daemon adopts what it finds."""
    stage.start()
    longest = max(stage.appliance.json("flows"), key=lambda flow: int(flow["bytes_received"]), default=None)
    expect(
        longest is not None and longest["bytes_received"] > TRANSFER / 5, "the new daemon lost the download"
    )
    stage.screen.right("the new daemon knows the download, with every byte of it")
