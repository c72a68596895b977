"""Rules that hold between the fields of one entity. Each raises `InvalidValue` that names the field."""

from ipaddress import ip_address

from marchproxy.model.actions import REDIRECT_STATUSES
from marchproxy.model.address import HostName
from marchproxy.model.appliance import MAX_BURST, ApplianceListener, Limit, ListenerKind, Per
from marchproxy.model.entities import (
    MAX_LISTEN_PORTS,
    Action,
    Auth,
    ClusterHead,
    Interface,
    JwtAlgorithm,
    LimitPer,
    Mapping,
    SendProxy,
    Service,
    WithoutSni,
)
from marchproxy.model.errors import InvalidValue
from marchproxy.model.protocol import OVER_HTTP, WITH_HTTP3, Protocol

OF_JWT = {
    "jwt_algorithm": JwtAlgorithm.HS256,
    "jwt_audience": None,
    "jwt_issuer": None,
    "jwt_keys": (),
    "jwks_url": None,
}
"""Fields of a service that say something with `auth` jwt only, and their defaults."""

_OVER_TCP = OVER_HTTP | {Protocol.TCP}


def check_cluster(cluster: ClusterHead) -> None:
    """Certificates are for a syslog server on TLS."""
    if cluster.syslog_ca and (cluster.syslog is None or cluster.syslog.transport != "tls"):
        raise InvalidValue("syslog", str(cluster.syslog), "tls://HOST:PORT, which syslog_ca is for")


def check_service(service: Service) -> None:
    """What is drained is one of its own addresses; JWTs have keys of their algorithm, or a secret."""
    _check_drain(service)
    for field in ("tls_ca", "tls_cert"):
        if getattr(service, field) and not service.tls:
            raise InvalidValue("tls", False, f"true, which {field} is for")
    if service.auth is Auth.JWT:
        _check_jwt(service)
    else:
        for field, default in OF_JWT.items():
            if getattr(service, field) != default:
                raise InvalidValue("auth", str(service.auth), f"jwt, which {field} is for")


def _check_jwt(service: Service) -> None:
    algorithm, keys = service.jwt_algorithm, service.jwt_keys
    if keys and service.jwks_url is not None:
        raise InvalidValue("jwks_url", service.jwks_url, "no address where jwt_keys says the keys themselves")
    if algorithm.key_type is None and (keys or service.jwks_url is not None):
        expected = "RS256, ES256 or EdDSA, which public keys are for: HS* has a secret"
        raise InvalidValue("jwt_algorithm", str(algorithm), expected)
    if algorithm.key_type is not None and not keys and service.jwks_url is None:
        raise InvalidValue("jwt_keys", None, f"the public keys of whoever issues its JWTs, with {algorithm}")
    for key in keys:
        if key.kty != algorithm.key_type:
            raise InvalidValue("jwt_keys", key.kty, f"keys of {algorithm}: {algorithm.key_type}")


def _check_drain(service: Service) -> None:
    """Which addresses its host names have, only DNS knows."""
    if any(isinstance(address, HostName) for address in service.addresses):
        return
    own = [address for address in service.addresses if not isinstance(address, HostName)]
    for drained in service.drain:
        if not any(ip_address(drained) in prefix for prefix in own):
            raise InvalidValue("drain", drained, "one of the service's own addresses")


def check_mapping(mapping: Mapping) -> None:
    """ICMP has no ports, only HTTP has hosts, paths and the like, only TCP has TLS that can be read."""
    portless = mapping.protocols == (Protocol.ICMP,)
    if portless and mapping.ports:
        raise InvalidValue("ports", str(mapping.ports[0]), "no ports with protocol icmp: ICMP has none")
    if mapping.listen and Protocol.ICMP in mapping.protocols:
        raise InvalidValue(
            "listen", str(mapping.listen), "no listen address with protocol icmp: ICMP has no ports"
        )
    if mapping.listen and len(mapping.listen.ports) > MAX_LISTEN_PORTS:
        raise InvalidValue("listen", str(mapping.listen), f"at most {MAX_LISTEN_PORTS} ports")
    routed = mapping.reads_requests
    if routed and not set(mapping.protocols) <= (WITH_HTTP3 if mapping.http3 else OVER_HTTP):
        expected = f"http, https or grpc with a {routed[0]}"
        raise InvalidValue("protocols", ",".join(mapping.protocols), expected)
    if mapping.path is not None and mapping.path_prefix is not None:
        raise InvalidValue("path", mapping.path, "no path with a path prefix: the one is the whole path")
    if mapping.sni and not set(mapping.protocols) <= _OVER_TCP:
        expected = "tcp, http, https or grpc with sni: the name is read from TLS over TCP"
        raise InvalidValue("protocols", ",".join(mapping.protocols), expected)
    if mapping.sni_missing is not WithoutSni.DENY and not mapping.sni:
        raise InvalidValue("sni_missing", str(mapping.sni_missing), "deny, unless sni is wanted")
    if mapping.tls is not None:
        _check_tls(mapping, mapping.tls)
    _check_requests(mapping)
    if mapping.proxy_from or mapping.send_proxy is not SendProxy.NONE:
        _check_proxy_protocol(mapping)
    _check_goal(mapping)


def _check_goal(mapping: Mapping) -> None:
    """There are destinations, or a redirect; and what becomes of requests is right."""
    if mapping.weights:
        _check_weights(mapping)
    if mapping.acts:
        _check_actions(mapping, mapping.acts)
    if bool(mapping.destinations) is (mapping.redirect is not None):
        leads = mapping.redirect is not None
        expected = "none with redirect: nothing goes there" if leads else "one: it is required"
        raise InvalidValue("destinations", list(mapping.destinations), expected)
    if mapping.redirect_status not in REDIRECT_STATUSES:
        raise InvalidValue("redirect_status", mapping.redirect_status, "301, 302, 303, 307 or 308")


def _check_weights(mapping: Mapping) -> None:
    """Every destination is a service that has one, and some has more than nothing."""
    shares, said = dict(each.split("=") for each in mapping.weights), ", ".join(mapping.weights)
    if mapping.listen is None:
        raise InvalidValue("weights", said, "none without listen: routed traffic goes where it says")
    if len(shares) < len(mapping.weights) or sorted(shares) != sorted(mapping.destinations):
        raise InvalidValue("weights", said, "one for each destination, which is a service")
    if not any(map(int, shares.values())):
        raise InvalidValue("weights", said, "one above 0 at least")


def _check_actions(mapping: Mapping, field: str) -> None:
    """They are for requests that are read, and that go on."""
    if not set(mapping.protocols) <= (WITH_HTTP3 if mapping.http3 else OVER_HTTP):
        raise InvalidValue("protocols", ",".join(mapping.protocols), f"http, https or grpc with {field}")
    if mapping.listen is None or mapping.sni:
        expected = "nothing where HTTP is not read: without listen, with sni"
        raise InvalidValue(field, getattr(mapping, field), expected)
    if mapping.action is Action.DENY:
        raise InvalidValue(field, getattr(mapping, field), "nothing in a mapping that denies")


def _check_proxy_protocol(mapping: Mapping) -> None:
    """Its header stands before a stream that user space begins; HTTP says the same in a field of its own."""
    field = "proxy_from" if mapping.proxy_from else "send_proxy"
    value = str(mapping.proxy_from[0]) if mapping.proxy_from else str(mapping.send_proxy)
    if mapping.listen is None:
        raise InvalidValue(field, value, "no PROXY protocol without listen: routed traffic keeps its source")
    if mapping.protocols != (Protocol.TCP,):
        raise InvalidValue("protocols", ",".join(mapping.protocols), "tcp alone with the PROXY protocol")


def _check_tls(mapping: Mapping, certificate: str) -> None:
    """TLS is over TCP, at a listener, and is not looked at from outside where it ends."""
    if mapping.listen is None:
        raise InvalidValue("tls", certificate, "no certificate without listen: routed TLS passes through")
    if not set(mapping.protocols) <= (WITH_HTTP3 if mapping.http3 else _OVER_TCP):
        expected = "tcp, http, https or grpc with tls; beside https also quic, which is HTTP/3 there"
        raise InvalidValue("protocols", ",".join(mapping.protocols), expected)
    if mapping.sni:
        expected = "no certificate with sni, which is for TLS that passes through: with tls it ends here"
        raise InvalidValue("tls", certificate, expected)


OF_REQUESTS = {
    name: Mapping.__dataclass_fields__[name].default
    for name in (
        *("connect_timeout", "response_timeout", "idle_timeout", "retry_on", "retry_budget"),
        *("eject_after", "eject_for", "eject_most", "max_requests", "max_waiting"),
        *("limit_requests", "limit_burst", "limit_per"),
        *("client_ca", "client_crl", "client_names", "trace", "mirror", "early_data"),
    )
}
"""Fields of a mapping that say something where requests are read only, and their defaults."""


def _check_requests(mapping: Mapping) -> None:
    """Requests are read of HTTP, at a listener."""
    said = [name for name, default in OF_REQUESTS.items() if getattr(mapping, name) != default]
    if said and mapping.listen is None:
        raise InvalidValue("listen", None, f"an address and port with {said[0]}: routed traffic is not read")
    if said and not set(mapping.protocols) <= (WITH_HTTP3 if mapping.http3 else OVER_HTTP):
        expected = f"http, https or grpc with {said[0]}"
        raise InvalidValue("protocols", ",".join(mapping.protocols), expected)
    if mapping.sni and said:
        raise InvalidValue(said[0], "", "nothing with sni: what passes under TLS is not read")
    if mapping.client_ca and mapping.tls is None:
        raise InvalidValue("tls", None, "a certificate of ours with client_ca: clients show theirs under TLS")
    if (mapping.client_crl or mapping.client_names) and not mapping.client_ca:
        raise InvalidValue("client_ca", None, "the CA of clients, which client_crl and client_names are for")
    if mapping.limit_requests is None and (
        mapping.limit_burst is not None or mapping.limit_per is not LimitPer.SOURCE
    ):
        raise InvalidValue(
            "limit_requests", None, "a rate such as 100/s, which limit_burst and limit_per are for"
        )
    if mapping.mirror is not None and (mapping.redirect is not None or mapping.action is Action.DENY):
        raise InvalidValue(
            "mirror", mapping.mirror, "nothing where requests go to no backend: redirect, deny"
        )
    if mapping.early_data:
        _check_early_data(mapping)
    if mapping.max_waiting and not mapping.max_requests:
        raise InvalidValue("max_requests", 0, "a bound that max_waiting requests can wait for")


def _check_early_data(mapping: Mapping) -> None:
    """Nobody has proven anything before the handshake is complete, and backends have to know of it."""
    if not mapping.http3:
        said = ",".join(mapping.protocols)
        raise InvalidValue("protocols", said, "https,quic, and a certificate as tls, with early_data")
    for field, value in (("action", mapping.action), ("auth_required", mapping.auth_required)):
        if value in (Action.DENY, True):
            raise InvalidValue(field, str(value).lower(), "nothing that refuses, with early_data")
    if mapping.client_ca:
        raise InvalidValue("client_ca", "", "none with early_data: no certificate is shown that soon")
    if any(each.split()[1:2] == ["early-data"] for each in mapping.request_headers):
        raise InvalidValue("request_headers", "early-data", "no such header: it says what came early")


def check_interface(interface: Interface) -> None:
    """Source addresses are for masquerade."""
    if interface.nat_addresses and not interface.masquerade:
        raise InvalidValue(
            "nat_addresses", interface.nat_addresses[0], "no source addresses without masquerade"
        )


def check_limit(limit: Limit) -> None:
    """Something is limited, for somebody."""
    rates = (limit.packets_per_second, limit.bytes_per_second, limit.flows_per_second)
    first = next((rate for rate in rates if rate is not None), None)
    if first is None:
        expected = "packets_per_second, bytes_per_second or flows_per_second"
        raise InvalidValue("packets_per_second", None, f"a rate: {expected}")
    if limit.burst is not None and limit.burst > MAX_BURST * first:
        raise InvalidValue("burst", limit.burst, f"at most {MAX_BURST} seconds' worth: {MAX_BURST * first}")
    if limit.per is Per.SERVICE and not limit.services:
        raise InvalidValue("services", [], "the services that are limited, with per service")


def check_listener(listener: ApplianceListener) -> None:
    """Its name says what it is, so that no two are the same; DNS is answered in the clear."""
    if listener.tls is not None and listener.kind is not ListenerKind.EXPLICIT:
        raise InvalidValue("tls", listener.tls, f"no certificate with {listener.kind}: explicit takes one")
    if listener.proxy_from and listener.kind is not ListenerKind.EXPLICIT:
        expected = f"no PROXY protocol with {listener.kind}: explicit takes it"
        raise InvalidValue("proxy_from", str(listener.proxy_from[0]), expected)
    own = listener_name(listener.kind, listener.bind)
    if listener.name != own:
        raise InvalidValue("name", listener.name, f"{own}, or no name: the other fields give it")


def listener_name(kind: object, bind: object) -> str:
    """The name of a listener of the appliance."""
    return f"{kind}@{bind}"
