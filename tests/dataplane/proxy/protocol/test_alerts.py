"""TLS alerts in the clear, as a TLS client understands them."""

import ssl

import pytest

from marchproxy.dataplane.proxy.protocol.alerts import Alert, fatal


@pytest.mark.parametrize("alert", Alert)
def test_a_client_learns_why(alert: Alert) -> None:
    incoming = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(fatal(alert))
    with pytest.raises(ssl.SSLError, match=f"(?i){alert.name.replace('_', '.')}"):
        client.do_handshake()
