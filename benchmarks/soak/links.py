"""What goes wrong with links: the wires that stand in them lose, double, damage and delay, or are torn."""

import random

from benchmarks.soak.scene import Scene
from rig.wire import Impairment, Wire

LEAST, MOST = 2.0, 5.0
"""Seconds that a bad link lasts."""
PARTITION = (0.5, 2.5)
"""Seconds: TCP sends its first SYN again after one and three, and clients wait for five."""
FLAP = (0.3, 2.0)
SMALL = 1280
"""Bytes: the least that IPv6 permits (RFC 8200 section 5)."""


def _wire(scene: Scene, draw: random.Random) -> Wire:
    return scene.wires[draw.choice(sorted(scene.wires))]


def _impair(scene: Scene, draw: random.Random, impairment: Impairment) -> None:
    with _wire(scene, draw).bad(impairment):
        scene.wait(draw.uniform(LEAST, MOST))


def loss(scene: Scene, draw: random.Random) -> None:
    """Of one to two in a hundred, in each direction."""
    _impair(scene, draw, Impairment(loss=draw.uniform(0.01, 0.02)))


def reordering(scene: Scene, draw: random.Random) -> None:
    """Of up to one in five."""
    _impair(scene, draw, Impairment(reordering=draw.uniform(0.05, 0.2), delay=1))


def duplication(scene: Scene, draw: random.Random) -> None:
    """Of up to one in five."""
    _impair(scene, draw, Impairment(duplication=draw.uniform(0.05, 0.2)))


def corruption(scene: Scene, draw: random.Random) -> None:
    """Of one bit of one to two frames in a hundred."""
    _impair(scene, draw, Impairment(corruption=draw.uniform(0.01, 0.02)))


def delay(scene: Scene, draw: random.Random) -> None:
    """Of up to a tenth of a second each way."""
    _impair(scene, draw, Impairment(delay=draw.uniform(10, 100)))


def partition(scene: Scene, draw: random.Random) -> None:
    """Nothing goes through, and nobody is told."""
    with _wire(scene, draw).bad(Impairment(loss=1.0)):
        scene.wait(draw.uniform(*PARTITION))


def flap(scene: Scene, draw: random.Random) -> None:
    """An interface of the appliance goes down and up again."""
    side = draw.choice(sorted(scene.wires))
    scene.rig.middle.ip(f"link set {side} down")
    try:
        scene.wait(draw.uniform(*FLAP))
    finally:
        scene.rig.middle.ip(f"link set {side} up")


def removal(scene: Scene, draw: random.Random) -> None:
    """An interface of the appliance is gone, and comes back as another one of the same name."""
    wire = _wire(scene, draw)
    wire.tear()
    try:
        scene.wait(draw.uniform(*FLAP))
    finally:
        wire.mend()


def neighbour(scene: Scene, draw: random.Random) -> None:
    """The server gets another link address, and says so as a host that takes over an address does."""
    server = scene.rig.server
    server.sysctl({"net.ipv4.conf.eth0.arp_notify": "1"})
    address = bytes((2, *draw.randbytes(5))).hex(":")
    server.ip(f"link set eth0 address {address}")
    scene.wait(1.0)


def mtu(scene: Scene, draw: random.Random) -> None:
    """The way to the server takes smaller packets for a while."""
    wire = scene.wires["outside0"]

    def become(size: int) -> None:
        scene.rig.middle.ip(f"link set outside0 mtu {size}")
        wire.host.ip(f"link set near mtu {size}", f"link set far mtu {size}")
        scene.rig.server.ip(f"link set eth0 mtu {size}")

    become(SMALL)
    try:
        scene.wait(draw.uniform(LEAST, MOST))
    finally:
        become(1500)
