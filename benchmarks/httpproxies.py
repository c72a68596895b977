"""Proxies that read HTTP: in the clear at the port of the server, under TLS and HTTP/3, and WebSockets."""

import json
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from benchmarks.bed import HTTP, WEBSOCKET, Bed, start_nginx
from benchmarks.contenders import OurDaemon, Routing
from benchmarks.processor import family
from benchmarks.proxies import ENVOY, Proxy, address, first_line
from marchproxy.model.reason import Reason
from rig import Appliance, Process
from rig.host import checked
from rig.network import LISTEN4
from rig.servers import ROOT
from rig.waiting import wait_for

SECURE = 8443
"""Where they speak TLS."""
QUIC = 8444
"""Where they speak HTTP/3: answers by TCP at such a port name it, so those of `SECURE` would be longer."""
INFORMING = 8091
"""Where those that pass requests on with less have the server told as much as MarchProxy tells it."""
NAME = "bench.test"
"""Whom their certificate names."""


class Reading(Protocol):
    """What a contender here is beside a `Contender`."""

    secure: ClassVar[bool]
    """It is measured under TLS, too."""
    http2: ClassVar[bool]
    http3: ClassVar[bool]
    websocket: ClassVar[bool]
    informs: ClassVar[bool]
    """It is measured at `INFORMING`, too."""
    keeps: ClassVar[bool]
    """It answers more than one request on a connection."""

    def processes(self) -> Sequence[int]:
        """Those whose processor time is its own."""

    def settle(self, websockets: int) -> None:
        """Wait until as many that are open are carried in the way that long ones are."""


class Direct(Routing):
    """Nobody in between: what client and server can do."""

    title = "no proxy"
    secure = http2 = http3 = informs = False
    websocket = keeps = True

    def processes(self) -> Sequence[int]:
        """None."""
        return ()

    def settle(self, _websockets: int) -> None:
        """They are."""


class HttpProxy(Proxy):
    """One of the others."""

    secure = http2 = http3 = websocket = keeps = True
    informs = False

    def processes(self) -> Sequence[int]:
        """See `Reading`."""
        return family(self._process.pid)

    def settle(self, _websockets: int) -> None:
        """They are: they stay where they began."""

    @property
    def upstream(self) -> str:
        """Where the server is."""
        return f"{self.server}:{HTTP.number}"

    @property
    def websockets(self) -> str:
        """Where it answers handshakes."""
        return f"{self.server}:{WEBSOCKET.number}"


class MarchProxyHttp(OurDaemon):
    """A mapping in the clear, under TLS and for HTTP/3; a worker for each processor, as the default is."""

    name = "marchproxy"
    title = "MarchProxy"
    secure = http2 = http3 = websocket = informs = keeps = True

    def __init__(self, bed: Bed) -> None:
        """Write its configuration."""
        super().__init__(bed)
        self.appliance = Appliance(bed.rig, name="http")
        cli = self.appliance.cli
        cli("init")
        for interface, role in (("inside0", "inside"), ("outside0", "outside")):
            cli("interface", "add", interface, "--role", role, "--mode", "tc")
        cli("service", "add", "clients", "--address", "10.1.0.0/24")
        for name, port in (("server", HTTP), ("websockets", WEBSOCKET)):
            cli("service", "add", name, "--address", self.server, "--port", str(port.number))
        chain, key = certificate(bed)
        cli("cert", "add", "bench", "--certificate", str(chain), "--key", str(key))
        plain = (("plain", "server", HTTP.number), ("informing", "server", INFORMING))
        for name, service, number in (*plain, ("websockets", "websockets", WEBSOCKET.number)):
            terms = ["--from", "clients", "--to", service]
            terms += ["--protocol", "http", "--listen", f"{LISTEN4}:{number}"]
            cli("mapping", "add", name, *terms)
            # Without anything to read, requests would stay in the kernel, which is another benchmark.
            cli("mapping", "add", f"{name}-banned", *terms, "--path-prefix", "/admin", "--action", "deny")
        for name, protocols, number in (("secure", "https", SECURE), ("quic", "https,quic", QUIC)):
            where = ("--protocol", protocols, "--listen", f"{LISTEN4}:{number}", "--tls", "bench")
            cli("mapping", "add", name, "--from", "clients", "--to", "server", *where)

    def processes(self) -> Sequence[int]:
        """See `Reading`."""
        daemon = self.appliance.daemon
        return family(daemon.pid) if daemon else ()

    def settle(self, websockets: int) -> None:
        """Wait until the kernel has taken them over."""
        which = ("--mapping", "websockets", "--reason", Reason.HANDED_OFF.name)

        def taken_over() -> bool:
            return len(self.appliance.json("flows", *which)) == websockets

        wait_for(taken_over, f"the kernel to carry {websockets} WebSockets", timeout=10)


class HAProxyHttp(HttpProxy):
    """Two threads, connections to the server shared among clients. Debian's has no HTTP/3."""

    name = "haproxy"
    title = "HAProxy"
    http3 = False
    informs = True

    def version(self) -> str:
        return first_line("haproxy", "-v")

    def start(self, folder: Path) -> Process:
        both = folder / "both.pem"
        both.write_bytes(b"".join(path.read_bytes() for path in certificate(self.bed)))
        (folder / "haproxy.cfg").write_text(f"""
global
    nbthread 2
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option forwardfor
    http-reuse always
listen all
    bind {LISTEN4}:{HTTP.number} backlog 8192
    bind {LISTEN4}:{SECURE} backlog 8192 ssl crt {both} alpn h2,http/1.1
    server one {self.upstream}
listen informing
    bind {LISTEN4}:{INFORMING} backlog 8192
    unique-id-format %[uuid()]
    unique-id-header X-Request-Id
    http-request deny if {{ path_beg /admin }}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header Forwarded for=%[src];proto=http;host=\"%[req.hdr(host)]\"
    http-request set-header Via "1.1 haproxy"
    server one {self.upstream}
listen websockets
    bind {LISTEN4}:{WEBSOCKET.number} backlog 8192
    timeout tunnel 60s
    server one {self.websockets}
""")
        return self.bed.rig.middle.popen(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")])


class NginxHttp(HttpProxy):
    """`proxy_pass` with kept connections; without these it would open one for each request.

    Debian's has no HTTP/3.
    """

    name = "nginx"
    title = "nginx"
    http3 = False
    informs = True

    def version(self) -> str:
        return first_line("nginx", "-v")

    def start(self, folder: Path) -> Process:
        chain, key = certificate(self.bed)
        return start_nginx(
            self.bed.rig.middle,
            folder,
            f"""
user root;
worker_processes 2;
worker_rlimit_nofile 16384;
pid nginx.pid;
daemon off;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
    uwsgi_temp_path temp; scgi_temp_path temp;
    keepalive_requests 100000000;
    upstream server {{ server {self.upstream}; keepalive 128; keepalive_requests 100000000; }}
    ssl_certificate {chain}; ssl_certificate_key {key};
    # As Debian's nginx.conf has it; by itself it speaks TLS 1.2, where resuming agrees on no new key.
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:10m;
    server {{
        listen {LISTEN4}:{HTTP.number} reuseport backlog=8192;
        listen {LISTEN4}:{SECURE} ssl http2 reuseport backlog=8192;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
    server {{
        listen {LISTEN4}:{INFORMING} reuseport backlog=8192;
        location /admin {{ return 403; }}
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header Forwarded 'for=$remote_addr;proto=$scheme;host="$http_host"';
            proxy_set_header Via "1.1 nginx";
            proxy_set_header X-Request-Id $request_id;
        }}
    }}
    server {{
        listen {LISTEN4}:{WEBSOCKET.number} reuseport backlog=8192;
        location / {{
            proxy_pass http://{self.websockets};
            proxy_http_version 1.1;
            proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
""",
        )


class EnvoyHttp(HttpProxy):
    """Its HTTP connection manager, two workers."""

    name = "envoy"
    title = "Envoy"

    def version(self) -> str:
        return first_line(str(ENVOY), "--version").replace(str(ENVOY.parent) + "/", "")

    def start(self, folder: Path) -> Process:
        configuration = folder / "envoy.json"
        configuration.write_text(json.dumps(self._configuration()))
        argv = [str(ENVOY), "-c", str(configuration), "--concurrency", "2", "--log-level", "error"]
        return self.bed.rig.middle.popen([*argv, "--disable-hot-restart"])

    def _configuration(self) -> dict[str, Any]:
        sockets = "type.googleapis.com/envoy.extensions.transport_sockets"
        tls = {"@type": f"{sockets}.tls.v3.DownstreamTlsContext", **self._tls("h2", "http/1.1")}
        listeners = [self._listener("plain", HTTP.number), self._listener("secure", SECURE)]
        listeners[1]["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": tls}
        listeners.append(self._listener("websockets", WEBSOCKET.number, "websockets"))
        manager = listeners[2]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        # A client that waits for the end of the connection, as RFC 6455 says, would wait a second for Envoy.
        manager["delayed_close_timeout"] = "0s"
        listeners.append(self._listener("quic", QUIC))
        listeners[3]["address"]["socket_address"]["protocol"] = "UDP"
        listeners[3]["udp_listener_config"] = {"quic_options": {}}
        chain, kind = listeners[3]["filter_chains"][0], f"{sockets}.quic.v3.QuicDownstreamTransport"
        quic = {"@type": kind, "downstream_tls_context": self._tls("h3")}
        chain["transport_socket"] = {"name": "quic", "typed_config": quic}
        chain["filters"][0]["typed_config"]["codec_type"] = "HTTP3"
        clusters = [self._cluster("server", HTTP.number), self._cluster("websockets", WEBSOCKET.number)]
        return {"static_resources": {"listeners": listeners, "clusters": clusters}}

    def _tls(self, *protocols: str) -> dict[str, Any]:
        chain, key = certificate(self.bed)
        pair = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
        return {"common_tls_context": {"tls_certificates": [pair], "alpn_protocols": protocols}}

    def _cluster(self, name: str, port: int) -> dict[str, Any]:
        endpoint = {"address": address(self.server, port)}
        return {
            "name": name,
            "connect_timeout": "5s",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
        }

    def _listener(self, name: str, port: int, cluster: str = "server") -> dict[str, Any]:
        base = "type.googleapis.com/envoy.extensions.filters"
        manager = {
            "@type": f"{base}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": NAME},
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
                    }
                ]
            },
            "http_filters": [{"name": "router", "typed_config": {"@type": f"{base}.http.router.v3.Router"}}],
        }
        return {
            "name": name,
            "address": address(LISTEN4, port),
            "tcp_backlog_size": 8192,
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }


class Caddy(HttpProxy):
    """As its quick start has it."""

    name = "caddy"
    title = "Caddy"

    def version(self) -> str:
        return first_line(str(_installed("caddy")), "version")

    def start(self, folder: Path) -> Process:
        chain, key = certificate(self.bed)
        (folder / "Caddyfile").write_text(f"""
{{
    admin off
    auto_https off
    persist_config off
    default_sni {NAME}
    log {{
        level ERROR
    }}
}}
http://:{HTTP.number} {{
    bind {LISTEN4}
    reverse_proxy {self.upstream}
}}
http://:{WEBSOCKET.number} {{
    bind {LISTEN4}
    reverse_proxy {self.websockets}
}}
https://:{SECURE}, https://:{QUIC} {{
    bind {LISTEN4}
    tls {chain} {key}
    reverse_proxy {self.upstream}
}}
""")
        argv = [str(_installed("caddy")), "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        argv[3] = str(folder / "Caddyfile")
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        return self.bed.rig.middle.popen(argv, env=home)


class Traefik(HttpProxy):
    """Routes from a file."""

    name = "traefik"
    title = "Traefik"

    def version(self) -> str:
        return first_line(str(_installed("traefik")), "version")

    def start(self, folder: Path) -> Process:
        chain, key = certificate(self.bed)
        pair = {"certFile": str(chain), "keyFile": str(key)}
        router = {"rule": "PathPrefix(`/`)", "service": "server"}
        dynamic = {
            "http": {
                "routers": {
                    "plain": {**router, "entryPoints": ["plain"]},
                    "secure": {**router, "entryPoints": ["secure", "quic"], "tls": {}},
                    "websockets": {**router, "entryPoints": ["websockets"], "service": "websockets"},
                },
                "services": {
                    "server": {"loadBalancer": {"servers": [{"url": f"http://{self.upstream}"}]}},
                    "websockets": {"loadBalancer": {"servers": [{"url": f"http://{self.websockets}"}]}},
                },
            },
            "tls": {"certificates": [pair], "stores": {"default": {"defaultCertificate": pair}}},
        }
        static = {
            "entryPoints": {
                "plain": {"address": f"{LISTEN4}:{HTTP.number}"},
                "secure": {"address": f"{LISTEN4}:{SECURE}"},
                "quic": {"address": f"{LISTEN4}:{QUIC}", "http3": {}},
                "websockets": {"address": f"{LISTEN4}:{WEBSOCKET.number}"},
            },
            "providers": {"file": {"filename": str(folder / "routes.yaml")}},
            "log": {"level": "ERROR"},
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        }
        # JSON is YAML, and Traefik goes by the name.
        (folder / "routes.yaml").write_text(json.dumps(dynamic))
        (folder / "traefik.yaml").write_text(json.dumps(static))
        argv = [str(_installed("traefik")), f"--configFile={folder / 'traefik.yaml'}"]
        return self.bed.rig.middle.popen(argv)


class InPython(HttpProxy):
    """A proxy in Python, which is measured in the clear only."""

    secure = http2 = http3 = informs = False

    @property
    @abstractmethod
    def program(self) -> Path:
        """What is started."""

    def version(self) -> str:
        return first_line(str(self.program), "--version")


class ProxyPy(InPython):
    """Two processes that accept. Of what is asked on a connection that is kept it answers the first."""

    name = "proxy.py"
    title = "proxy.py"
    websocket = keeps = False

    @property
    def program(self) -> Path:
        return _installed("proxy")

    def start(self, folder: Path) -> Process:
        (folder / "benchroutes.py").write_text(f"""
from proxy.http.server import ReverseProxyBasePlugin


class Everything(ReverseProxyBasePlugin):
    def routes(self):
        return [(r"/.*$", [b"http://{self.upstream}/"])]
""")
        argv = [str(self.program), "--hostname", LISTEN4, "--port", str(HTTP.number), "--num-workers", "2"]
        more = ["--num-acceptors", "2", "--log-level", "ERROR", "--enable-reverse-proxy"]
        environment = {"PYTHONPATH": str(folder), "HOME": str(folder)}
        return self.bed.rig.middle.popen(
            [*argv, *more, "--plugins", "benchroutes.Everything"], env=environment
        )


class Mitmproxy(InPython):
    """One process; it has an environment of its own, whose versions are not ours."""

    name = "mitmproxy"
    title = "mitmproxy"

    @property
    def program(self) -> Path:
        return ROOT / "build" / "mitmproxy" / "bin" / "mitmdump"

    def start(self, folder: Path) -> Process:
        argv = [str(self.program), "--quiet", "--set", f"confdir={folder}"]
        for upstream, port in ((self.upstream, HTTP), (self.websockets, WEBSOCKET)):
            argv += ["--mode", f"reverse:http://{upstream}@{LISTEN4}:{port.number}"]
        return self.bed.rig.middle.popen(argv)


type Reader = Direct | MarchProxyHttp | HttpProxy
"""Who is measured."""


def certificate(bed: Bed) -> tuple[Path, Path]:
    """Chain and key of all who speak TLS: one certificate, P-256, made once for each bed."""
    chain, key = bed.rig.files / "chain.pem", bed.rig.files / "key.pem"
    if not chain.exists():
        made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        named = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:{LISTEN4}"]
        checked(["openssl", "req", *made, *named, "-keyout", str(key), "-out", str(chain)])
    return chain, key


def _installed(name: str) -> Path:
    return Path(sys.executable).with_name(name)
