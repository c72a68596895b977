"""What the kernel counts at network devices, of the network namespace that asks."""

from collections.abc import Collection, Mapping
from pathlib import Path

from marchproxy.telemetry.facts import DeviceCounts

PROC_NET_DEV = Path("/proc/thread-self/net/dev")


def read_devices(names: Collection[str], file: Path = PROC_NET_DEV) -> Mapping[str, DeviceCounts]:
    """The counters of those of `names` that there are (proc_pid_net(5), `dev`); none if unreadable."""
    try:
        lines = file.read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, colon, rest = line.strip().rpartition(":")
        if not colon or name not in names:
            continue
        try:
            cells = [int(cell) for cell in rest.split()]
        except ValueError:
            continue
        if len(cells) >= 16:
            received, sent = cells[:8], cells[8:]
            found[name] = DeviceCounts(
                received=(received[1], received[0]),
                sent=(sent[1], sent[0]),
                received_errors=received[2],
                sent_errors=sent[2],
                received_dropped=received[3],
                sent_dropped=sent[3],
            )
    return found
