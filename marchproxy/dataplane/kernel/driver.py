"""Which tier suits an interface's driver."""

import array
import fcntl
import socket
import struct

from marchproxy.model.entities import Mode

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 0x3
_DRIVER_INFO = struct.Struct("=I32s32s32s32s32s12sIIIII")
_REQUEST = struct.Struct("@16sP")

_NATIVE_REDIRECT = frozenset(
    {
        "atlantic", "bnxt_en", "cpsw", "dpaa2-eth", "ena", "enetc", "fsl_dpa", "gve", "hv_netvsc", "i40e",
        "ice", "igb", "igc", "ixgbe", "ixgbevf", "lan966x", "mana", "mlx4_en", "mlx5_core", "mvneta",
        "mvpp2", "netsec", "nfp", "octeontx2-nicpf", "qede", "sfc", "sfc_siena", "stmmac", "thunder-nicvf",
        "tsnep", "vmxnet3",
    }
)  # fmt: skip
"""Drivers of physical and paravirtual devices with native XDP_REDIRECT, by the kernel's own `xdp-features`
(6.12).

veth, tun and virtio_net have it too and are left out: there large segments stay whole below TC and are lost
to XDP, which costs a bulk stream most of its speed.
"""


def driver_of(interface: str) -> str:
    """The driver's name, empty where the device does not tell.

    Asked by ioctl, because sysfs may show another network namespace than the thread's.
    """
    info = array.array("B", bytes(_DRIVER_INFO.size))
    struct.pack_into("=I", info, 0, _ETHTOOL_GDRVINFO)
    address, _ = info.buffer_info()
    request = _REQUEST.pack(interface.encode()[:15], address).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request)
        except OSError:
            return ""
    name = _DRIVER_INFO.unpack(info.tobytes())[1]
    return bytes(name).split(b"\0", 1)[0].decode(errors="replace")


def choose_mode(interface: str, mode: Mode) -> Mode:
    """What `auto` means for an interface; any other mode is what the operator said."""
    if mode is not Mode.AUTO:
        return mode
    return Mode.XDP if driver_of(interface) in _NATIVE_REDIRECT else Mode.TC
