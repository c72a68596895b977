"""A collector that reads IPFIX messages by RFC 7011 alone: it knows nothing but what templates say."""

import struct
from dataclasses import dataclass, field


@dataclass
class Reader:
    """What one transport session has brought. AssertionError for what the RFC does not allow."""

    enterprise: int = 32473
    templates: dict[int, list[tuple[int, int, bool]]] = field(default_factory=dict)
    records: list[tuple[int, dict[int | tuple[str, int], bytes]]] = field(default_factory=list)
    """Template and values by element; elements of an enterprise as ("own", number)."""
    sequence: int = 0
    messages: int = 0

    def stream(self, data: bytes) -> None:
        """Messages one behind the other."""
        while data:
            length = struct.unpack_from("!H", data, 2)[0]
            self.message(data[:length])
            data = data[length:]

    def message(self, data: bytes) -> None:
        """One message."""
        version, length, _, sequence, domain = struct.unpack_from("!HHIII", data)
        assert (version, length) == (10, len(data))
        assert domain != 0
        assert sequence == self.sequence
        self.messages += 1
        at = 16
        while at < length:
            number, size = struct.unpack_from("!HH", data, at)
            assert size >= 4
            body = data[at + 4 : at + size]
            if number == 2:
                self._templates(body)
            else:
                self._data(number, body)
            at += size
        assert at == length

    def _templates(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            number, count = struct.unpack_from("!HH", body, at)
            assert number >= 256
            at += 4
            elements = []
            for _ in range(count):
                element, size = struct.unpack_from("!HH", body, at)
                at += 4
                own = bool(element & 0x8000)
                if own:
                    assert struct.unpack_from("!I", body, at)[0] == self.enterprise
                    at += 4
                elements.append((element & 0x7FFF, size, own))
            self.templates[number] = elements

    def _data(self, number: int, body: bytes) -> None:
        assert number in self.templates, "data before their template"
        at = 0
        while at < len(body):
            values: dict[int | tuple[str, int], bytes] = {}
            for element, fixed, own in self.templates[number]:
                size = fixed
                if fixed == 0xFFFF:
                    size = body[at]
                    at += 1
                    assert size < 255
                assert at + size <= len(body)
                values[("own", element) if own else element] = body[at : at + size]
                at += size
            self.records.append((number, values))
            self.sequence += 1
