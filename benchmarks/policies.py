"""Large policies, made up but shaped like real ones."""

from ipaddress import ip_address
from typing import Any

type Document = dict[str, Any]

LISTENERS = 1000


def large(base: Document, size: int) -> Document:
    """`base` (what `export` prints) with `size` more services and as many mappings.

    Half of the services are groups of clients, half are backends. The mappings share `LISTENERS` listeners.
    """
    cluster = base["clusters"][0]
    half = size // 2
    clients = [
        {"name": f"c{i}", "addresses": [f"{ip_address('100.64.0.0') + 16 * i}/28"]} for i in range(half)
    ]
    backends = [
        {"name": f"b{i}", "addresses": [str(ip_address("198.18.0.0") + i)], "port": 80} for i in range(half)
    ]
    mappings = [
        {
            "name": f"m{i}",
            "sources": [f"c{i % half}"],
            "destinations": [f"b{i * 7 % half}"],
            "protocols": ["tcp"],
            "listen": f"10.1.0.1:{20000 + i % LISTENERS}",
        }
        for i in range(size)
    ]
    grown = {
        **cluster,
        "services": [*cluster["services"], *clients, *backends],
        "mappings": [*cluster["mappings"], *mappings],
    }
    return {**base, "clusters": [grown, *base["clusters"][1:]]}
