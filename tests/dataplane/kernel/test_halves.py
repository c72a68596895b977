"""halves: both directions of a flow tell the same about it."""

from marchproxy.dataplane.kernel import halves, layouts
from tests.dataplane.kernel.conversations import Conversation


def test_either_half_tells_who_asked_for_what_and_where_it_goes() -> None:
    each = Conversation(listen_port=443)
    pairs = ((each.key, each.entry, each.reply_key), (each.reply_key, each.reply, each.key))
    for raw_key, raw, other in pairs:
        half = halves.HALF.unpack(raw)
        assert str(layouts.read_address(halves.client(raw_key, half))) == each.client
        assert str(layouts.read_address(halves.asked(raw_key, half))) == each.listener
        address, port = halves.backend(raw_key, half)
        assert (str(layouts.read_address(address)), layouts.read_port(port)) == (each.backend, 8080)
        assert halves.other_key(raw_key, half) == other
        assert layouts.read_flow(raw).other_key(raw_key[halves.KEY_PROTOCOL]) == other


def test_fields_are_where_they_are_said_to_be() -> None:
    each = Conversation()
    raw = each.entry
    entry, half = layouts.read_flow(raw), halves.HALF.unpack(raw)
    for name, place in (
        ("mapping", halves.MAPPING),
        ("id", halves.ID),
        ("started", halves.STARTED),
        ("last_seen", halves.LAST_SEEN),
        ("packets", halves.PACKETS),
        ("octets", halves.BYTES),
        ("state", halves.STATE),
        ("flags", halves.FLAGS),
    ):
        assert half[place] == getattr(entry, name)
