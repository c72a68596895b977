"""The test bed: a rig with servers that stay up, the same for every contender."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.wrk import parse
from rig import Host, Process, Rig, RigError
from rig.host import checked
from rig.servers import ROOT
from rig.traffic import fetch

type Transport = Literal["tcp", "udp"]

CONGESTION_CONTROL = "reno"
"""For every socket on the bed. A kernel may default to BBR, whose pacing hides the differences."""

TOLERATED_FAILURES = 0.001
"""Share of requests. Whoever loses more is not faster but broken."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the server, which every contender offers under the same number."""

    name: str
    transport: Transport
    number: int


HTTP = Port("http", "tcp", 8080)
STREAM = Port("stream", "tcp", 5201)
PINGPONG = Port("pingpong", "tcp", 7000)
DATAGRAMS = Port("datagrams", "udp", 7000)
TUNNEL = Port("tunnel", "tcp", 7999)
DNS = Port("dns", "udp", 7053)
WEBSOCKET = Port("websocket", "tcp", 8090)
"""None of `PORTS`: only who reads HTTP offers it (`httpproxies`)."""
LARGE = 1 << 20
"""Bytes of /large, by HTTP."""
ANSWER = 4 * "0123456789abcdef"
"""To every other request."""
PORTS = (HTTP, STREAM, PINGPONG, DATAGRAMS, TUNNEL, DNS)

NGINX = """
user root;
worker_processes 2;
worker_rlimit_nofile 16384;
pid nginx.pid;
daemon off;
error_log stderr error;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
    uwsgi_temp_path temp; scgi_temp_path temp;
    keepalive_requests 100000000;
    sendfile on;
    server {
        listen 8080 reuseport backlog=8192;
        location = /large { root .; }
        location / { return 200 "ANSWER"; }
    }
}
""".replace("ANSWER", ANSWER)


class Bed:
    """Client, appliance and server hosts, with the servers of `PORTS` and `WEBSOCKET` running."""

    def __init__(self, rig: Rig) -> None:
        """Set one congestion control everywhere and start the servers."""
        self.rig = rig
        self._tune()
        self._traffic = compiled("traffic")
        folder = rig.files / "http-server"
        folder.mkdir(exist_ok=True)
        (folder / "large").write_bytes(bytes(LARGE))
        start_nginx(rig.server, folder, NGINX)
        rig.server.popen(["iperf3", "--server", "--forceflush"]).expect("listening")
        rig.server.popen([self._traffic, "serve", str(PINGPONG.number)]).expect("ready")
        rig.server.popen([compiled("dns"), "serve", str(DNS.number)]).expect("ready")
        rig.server.popen([compiled("tunnel"), "serve", str(TUNNEL.number)]).expect("ready")
        rig.server.popen([compiled("websocket"), "serve", str(WEBSOCKET.number)]).expect("ready")

    def _tune(self) -> None:
        available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
        if CONGESTION_CONTROL not in available:
            raise RigError(
                f"this kernel has no {CONGESTION_CONTROL} congestion control", hint=" ".join(available)
            )
        for host in (self.rig.client, self.rig.middle, self.rig.server):
            host.sysctl({"net.ipv4.tcp_congestion_control": CONGESTION_CONTROL})
        # For the proxies, whose every connection takes a port of the middle host.
        self.rig.middle.sysctl({"net.ipv4.ip_local_port_range": "1024 65000"})

    def forget(self) -> None:
        """End what server and appliance remember of closed connections.

        They keep their tuples in TIME_WAIT for a minute. Several contenders have one address, and without
        this each would meet the tuples of those before it, and wait a second for every second SYN.
        """
        for host in (self.rig.middle, self.rig.server):
            host.run(["ss", "--tcp", "--kill", "state", "time-wait"])

    def iperf(self, target: str, seconds: float, *options: str) -> Any:
        """One iperf3 run from the client, as its JSON."""
        argv = ["iperf3", "--json", "--client", target, "--time", f"{seconds:g}", *options]
        return json.loads(self._measure(argv, seconds))

    def wrk(self, target: str, seconds: float, *options: str) -> float:
        """Requests a second of one wrk run from the client; `RigError` where too many of them failed."""
        url = f"http://{target}:{HTTP.number}/"
        run = parse(self._measure(["wrk", "--duration", f"{seconds:g}s", *options, url], seconds))
        if run.failed > TOLERATED_FAILURES * run.requests:
            raise RigError(f"{run.failed} of {run.requests} requests failed")
        return run.per_second

    def exchange(
        self, target: str, port: Port, seconds: float, *, sockets: int, in_flight: int, size: int = 64
    ) -> Any:
        """One run of the traffic program with messages of `size` bytes, as its JSON."""
        shape = [str(sockets), str(in_flight), str(size), f"{seconds:g}"]
        argv = [self._traffic, port.transport, target, str(port.number), *shape]
        return json.loads(self._measure(argv, seconds))

    def questions(self, target: str, seconds: float, *, at_once: int) -> float:
        """Answers a second to DNS questions, each from a new port; `RigError` where too many fail."""
        argv = [compiled("dns"), "ask", target, str(DNS.number), str(at_once), f"{seconds:g}"]
        said = json.loads(self._measure(argv, seconds))
        failed = said["lost"] + said["wrong"]
        if failed > TOLERATED_FAILURES * said["answers"]:
            raise RigError(f"{failed} questions failed, {said['answers']} were answered")
        return float(said["answers"] / said["seconds"])

    def answers(self, target: str) -> bool:
        """Whether HTTP gets through to the server at `target`: proxies have answers of their own before."""
        try:
            return self.rig.client.call(fetch, target, HTTP.number) == ANSWER.encode()
        except OSError:
            return False

    def _measure(self, argv: list[str], seconds: float) -> str:
        return self.rig.client.run(argv, timeout=seconds + 10).stdout


def start_nginx(host: Host, folder: Path, configuration: str) -> Process:
    """Run nginx in `host`, with everything it writes in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(configuration)
    return host.popen(["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"])


def compiled(name: str) -> str:
    """The path of `NAME.c` as a program, compiled where it is missing or older than its source."""
    source = Path(__file__).with_name(f"{name}.c")
    newest = max(path.stat().st_mtime for path in (source, *source.parent.glob("*.h")))
    program = ROOT / "build" / name
    if not program.exists() or program.stat().st_mtime < newest:
        program.parent.mkdir(exist_ok=True)
        checked(["clang", "-O2", "-Wall", "-o", str(program), str(source)])
    return str(program)
