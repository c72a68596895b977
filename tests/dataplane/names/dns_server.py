"""A DNS server that answers as tests tell it: truly, late, cut off, wrongly, or not at all."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from marchproxy.model.endpoint import Endpoint

SOA = "ns.example.com. admin.example.com. 1 3600 600 86400 30"

type Address = tuple[str, int]


class DnsServer:
    """UDP and TCP on the same port of 127.0.0.1. Change its attributes while it runs."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]]] = {}
        """Name and type to TTL and data."""
        self.rcode: dns.rcode.Rcode | None = None
        """Answer everything with this."""
        self.silent = False
        self.delay = 0.0
        self.truncated = False
        """Over UDP, send the header only and TC."""
        self.truncated_always = False
        self.knows_edns = True
        self.lies: list[str] = []
        """Before the true answer: `id`, `question`, `port`, `garbage`, `question-as-answer`."""
        self.follows = True
        """Puts the target of an alias into the same answer."""
        self.asked: list[tuple[str, str]] = []
        self.over_tcp: list[str] = []
        self.ports: list[int] = []
        self.ids: list[int] = []
        self.extra: list[dns.rrset.RRset] = []
        """Put into every answer section."""
        self.udp: asyncio.DatagramTransport | None = None
        self.tcp: asyncio.Server | None = None
        self.endpoint = Endpoint(ip_address("127.0.0.1"), 0)

    def has(self, name: str, *texts: str, ttl: int = 300, kind: str = "") -> None:
        """Make a name be these addresses, or data of `kind`."""
        by_kind: dict[str, list[str]] = {}
        for text in texts:
            by_kind.setdefault(kind or ("AAAA" if ":" in text else "A"), []).append(text)
        for each in ("A", "AAAA", "CNAME"):
            self.records.pop((name, each), None)
        for each, data in by_kind.items():
            self.records[name, each] = (ttl, data)

    def forget(self, name: str) -> None:
        """Make a name not exist."""
        for key in [key for key in self.records if key[0] == name]:
            del self.records[key]

    def answer(self, wire: bytes) -> dns.message.Message:
        """The true answer."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        self.ids.append(query.id)
        response = dns.message.make_response(query, recursion_available=True)
        if not self.knows_edns:
            response.use_edns(False)
            if query.edns >= 0:
                response.set_rcode(dns.rcode.FORMERR)
                return response
        if self.rcode is not None:
            response.set_rcode(self.rcode)
            return response
        response.answer = [*self._chain(name, kind), *self.extra]
        if not response.answer:
            response.authority = [dns.rrset.from_text("example.com.", 60, "IN", "SOA", SOA)]
            if not any(known == name for known, _ in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    def datagrams(self, wire: bytes) -> Iterable[bytes]:
        """What to send for a question over UDP, lies first."""
        response = self.answer(wire)
        for lie in self.lies:
            if lie == "id":
                yield ((response.id + 1) & 0xFFFF).to_bytes(2) + response.to_wire()[2:]
            elif lie == "question":
                other = dns.message.make_query("evil.example.com", "A", id=response.id)
                other.flags |= dns.flags.QR
                other.answer = [dns.rrset.from_text("evil.example.com.", 60, "IN", "A", "203.0.113.66")]
                yield other.to_wire()
            elif lie == "garbage":
                yield b"\0" * 7
            elif lie == "question-as-answer":
                yield wire
        if self.truncated or self.truncated_always:
            response.answer, response.authority = [], []
            response.flags |= dns.flags.TC
        yield response.to_wire()

    def _chain(self, name: str, kind: str) -> list[dns.rrset.RRset]:
        found = []
        for _ in range(8):
            for each in (kind, "CNAME"):
                if (name, each) in self.records:
                    ttl, data = self.records[name, each]
                    found.append(dns.rrset.from_text(f"{name}.", ttl, "IN", each, *data))
                    break
            else:
                return found
            if each == kind or not self.follows:
                return found
            name = data[0].removesuffix(".")
        return found


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self.closed = asyncio.Event()

    def connection_lost(self, _: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, address: Address) -> None:
        server = self._server
        server.ports.append(address[1])
        if server.silent:
            return
        if "port" in server.lies:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", 0))
                lie = server.answer(data)
                lie.answer = [dns.rrset.from_text(lie.question[0].name, 60, "IN", "A", "203.0.113.66")]
                other.sendto(lie.to_wire(), address)
        for wire in server.datagrams(data):
            asyncio.get_running_loop().call_later(server.delay, self._send, wire, address)

    def _send(self, wire: bytes, address: Address) -> None:
        if self._server.udp is not None:
            self._server.udp.sendto(wire, address)


async def _serve_tcp(server: DnsServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        if server.silent:
            await reader.read()
            return
        server.over_tcp.append(dns.message.from_wire(wire).question[0].name.to_text())
        response = server.answer(wire)
        if server.truncated_always:
            response.flags |= dns.flags.TC
        answer = response.to_wire(max_size=65535)
        writer.write(len(answer).to_bytes(2) + answer)
        await writer.drain()
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def dns_server(port: int = 0) -> AsyncGenerator[DnsServer]:
    """One that serves for as long as the block lasts."""
    loop, server = asyncio.get_running_loop(), DnsServer()
    server.tcp = await asyncio.start_server(lambda r, w: _serve_tcp(server, r, w), "127.0.0.1", port)
    port = server.tcp.sockets[0].getsockname()[1]
    server.udp, udp = await loop.create_datagram_endpoint(
        lambda: _Udp(server), local_addr=("127.0.0.1", port)
    )
    server.endpoint = Endpoint(ip_address("127.0.0.1"), port)
    try:
        yield server
    finally:
        server.udp.close()
        server.udp = None
        server.tcp.close()
        await udp.closed.wait()
