"""A real sshd in a host of the rig."""

import shutil
import socket
import subprocess
from pathlib import Path

from rig import Host, wait_for


def start_sshd(host: Host, address: str, folder: Path) -> Path:
    """Start one at port 22; the file of a key that it lets root in with."""
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "config").write_text(
        f"Port 22\nListenAddress {address}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\n"
        "StrictModes no\nPermitRootLogin prohibit-password\nPidFile none\n"
    )
    # It wants to be called by its whole path.
    host.popen([shutil.which("sshd") or "", "-D", "-e", "-f", str(folder / "config")])
    wait_for(lambda: listens(host, address, 22), "sshd")
    return folder / "key"


def listens(host: Host, address: str, port: int) -> bool:
    """Whether somebody accepts there."""

    def try_it() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex((address, port)) == 0

    return host.call(try_it)


def ssh(key: Path, folder: Path, command: str, address: str) -> list[str]:
    """The words of ssh by way of `command`."""
    return [
        "ssh", "-F", "none", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
        "-o", f"UserKnownHostsFile={folder}/hosts", "-o", f"ProxyCommand={command}", f"root@{address}",
    ]  # fmt: skip
