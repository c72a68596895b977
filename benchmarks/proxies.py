"""Proxies in user space, tuned as their own documentation advises for forwarding TCP and UDP."""

import json
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bed import PORTS, Port, start_nginx
from benchmarks.contenders import Contender
from rig.network import LISTEN4
from rig.process import Process
from rig.waiting import RigError


class Proxy(Contender):
    """A program in the middle host that accepts connections and opens its own."""

    @abstractmethod
    def start(self, folder: Path) -> Process:
        """Run it with its configuration and everything it writes in `folder`."""

    @contextmanager
    def standing(self) -> Iterator[None]:
        folder = self.bed.rig.files / self.name
        folder.mkdir(exist_ok=True)
        self._process = self.start(folder)
        try:
            yield
        finally:
            self._process.stop()

    def reached(self) -> bool:
        if not self._process.running:
            raise RigError(f"{self.title} ended", hint=self._process.tail())
        return super().reached()


class HAProxy(Proxy):
    """Splicing, so that bulk data stays in the kernel, through pipes and buffers larger than the default."""

    name = "haproxy"
    title = "HAProxy TCP"
    carries_udp = False

    def version(self) -> str:
        return first_line("haproxy", "-v")

    def start(self, folder: Path) -> Process:
        configuration = folder / "haproxy.cfg"
        configuration.write_text(self._configuration())
        return self.bed.rig.middle.popen(["haproxy", "-db", "-f", str(configuration)])

    def _configuration(self) -> str:
        listeners = "".join(
            f"listen {port.name}\n"
            f"    bind {LISTEN4}:{port.number} backlog 8192\n"
            f"    server one {self.server}:{port.number}\n"
            for port in PORTS
            if port.transport == "tcp"
        )
        return f"""
global
    nbthread 2
    maxconn 4000
    tune.bufsize 65536
    tune.pipesize 1048576
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option splice-auto
    option tcp-smart-accept
    option tcp-smart-connect
{listeners}"""


class Nginx(Proxy):
    """The stream module: one accept queue per worker, 64 kB buffers."""

    name = "nginx"
    title = "nginx stream"

    def version(self) -> str:
        return first_line("nginx", "-v")

    def start(self, folder: Path) -> Process:
        return start_nginx(self.bed.rig.middle, folder, self._configuration())

    def _configuration(self) -> str:
        servers = "".join(
            f"server {{ listen {LISTEN4}:{port.number} {listen}; proxy_pass {self.server}:{port.number}; }}\n"
            for port in PORTS
            for listen in ["udp reuseport" if port.transport == "udp" else "reuseport backlog=8192"]
        )
        # Debian builds the stream module as a plug-in; elsewhere it is often built in.
        plugin = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        load = f"load_module {plugin};" if plugin.exists() else ""
        return f"""
{load}
user root;
worker_processes 2;
worker_rlimit_nofile 16384;
pid nginx.pid;
daemon off;
error_log stderr error;
events {{ worker_connections 8192; }}
stream {{
    access_log off;
    tcp_nodelay on;
    proxy_buffer_size 64k;
    proxy_connect_timeout 5s;
    proxy_timeout 60s;
    {servers}
}}
"""


class Envoy(Proxy):
    """TCP proxies, two workers, each with an accept queue of its own (`enable_reuse_port` is its default)."""

    name = "envoy"
    title = "Envoy TCP"
    carries_udp = False

    def version(self) -> str:
        return first_line(str(ENVOY), "--version").replace(str(ENVOY.parent) + "/", "")

    def start(self, folder: Path) -> Process:
        configuration = folder / "envoy.json"
        configuration.write_text(json.dumps(self._configuration()))
        argv = [str(ENVOY), "-c", str(configuration), "--concurrency", "2", "--log-level", "error"]
        return self.bed.rig.middle.popen([*argv, "--disable-hot-restart"])

    def _configuration(self) -> dict[str, Any]:
        ports = [port for port in PORTS if port.transport == "tcp"]
        return {
            "static_resources": {
                "listeners": [*map(_listener, ports)],
                "clusters": [*map(self._cluster, ports)],
            }
        }

    def _cluster(self, port: Port) -> dict[str, Any]:
        endpoint = {"address": address(self.server, port.number)}
        return {
            "name": port.name,
            "connect_timeout": "5s",
            "type": "STATIC",
            "per_connection_buffer_limit_bytes": 1 << 20,
            "load_assignment": {
                "cluster_name": port.name,
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
        }


ENVOY = Path(sys.executable).with_name("envoy")


def address(host: str, port: int) -> dict[str, Any]:
    """As Envoy has them in its configuration."""
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(port: Port) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    configured = {"@type": kind, "stat_prefix": port.name, "cluster": port.name}
    return {
        "name": port.name,
        "address": address(LISTEN4, port.number),
        "per_connection_buffer_limit_bytes": 1 << 20,
        "tcp_backlog_size": 8192,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": configured}]}
        ],
    }


def first_line(*argv: str) -> str:
    """The first line that says anything of what a program prints about itself, on whichever stream."""
    result = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return next(filter(None, map(str.strip, result.stdout.splitlines())), "")
