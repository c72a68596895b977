"""Which appliance the environment names."""

from pathlib import Path

import pytest

from marchproxy.client.appliance import Appliance
from marchproxy.model.errors import InvalidValue


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, None),
        ({"MARCHPROXY_STATE_DIR": ""}, None),
        ({"MARCHPROXY_STATE_DIR": "/a"}, Path("/a")),
        ({"MARCHPROXY_STATE_DIR": "/a", "DATABASE_URL": "postgresql://db/x"}, None),
        ({"MARCHPROXY_STATE_DIR": "/a", "DB_TYPE": "mysql"}, None),
    ],
)
def test_state_folder(variables: dict[str, str], folder: Path | None) -> None:
    assert Appliance(variables=variables).state_dir == folder


def test_control_socket() -> None:
    assert Appliance(variables={}).control_socket == Path("/run/marchproxy/control.sock")
    assert Appliance(variables={"MARCHPROXY_RUNTIME_DIR": "/r"}).control_socket == Path("/r/control.sock")


def test_management_ports() -> None:
    assert 22 in Appliance(variables={}).management_ports
    assert Appliance(variables={"MARCHPROXY_MANAGEMENT_PORTS": "2222"}).management_ports == {2222}
    with pytest.raises(InvalidValue):
        _ = Appliance(variables={"MARCHPROXY_MANAGEMENT_PORTS": "many"}).management_ports
