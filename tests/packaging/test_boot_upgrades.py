"""The Debian package in real systems: upgraded and downgraded under traffic."""

import json

from marchproxy.version import VERSION
from rig import Rig
from rig.traffic import fetch
from tests.packaging.booted import (
    DEFINE,
    HANDED_OFF,
    MARKS,
    NEWER,
    PID,
    PYTHON,
    TUNNELS,
    VIP,
    assert_counted_on,
    conversations,
    while_talking,
)
from tests.packaging.box import Box
from tests.packaging.load import Load

pytestmark = MARKS


def test_an_upgrade_and_a_downgrade_cut_no_flow(rig: Rig, defined: Box) -> None:
    def flow() -> dict[str, int]:
        flows = json.loads(defined.ok("marchproxy flows --output json --protocol tcp"))
        return next(row for row in flows if row["destination_port"] == 7007)

    def disturb() -> None:
        before = flow()
        defined.ok("echo MARCHPROXY_DRAIN_SECONDS=2 >>/etc/marchproxy/marchproxy.env")
        defined.ok("apt-get install -y /files/newer.deb")
        status = defined.ok("marchproxy status --output json")
        assert f'"version": "{NEWER}"' in status
        defined.ok("apt-get install -y --allow-downgrades /files/this.deb")
        assert f'"version": "{VERSION}"' in defined.ok("marchproxy status --output json")
        after = flow()
        assert (after["id"], after["started"]) == (before["id"], before["started"])
        assert after["packets_sent"] > before["packets_sent"]

    while_talking(rig, disturb)
    # What the administrator has changed stays.
    assert "MARCHPROXY_DRAIN_SECONDS=2" in defined.ok("cat /etc/marchproxy/marchproxy.env")


def test_a_thousand_conversations_outlive_an_upgrade_and_the_way_back(rig: Rig, box: Box) -> None:
    """None is cut, no datagram lost, and what is counted goes on being counted."""
    box.ok("apt-get install -y /files/other.deb")
    box.ok(DEFINE)
    box.ok(TUNNELS)
    load = Load(rig.client, (VIP, 7007), (VIP, 3128), "10.2.0.2:7")
    try:
        load.open()
        with load:
            box.until(f'[ "$({HANDED_OFF})" -ge {load.tunnels} ]')
            before, rounds = conversations(box), load.rounds
            box.ok("apt-get install -y --allow-downgrades /files/this.deb")
            assert f'"version": "{VERSION}"' in box.ok("marchproxy status --output json")
            between = conversations(box)
            box.ok("apt-get install -y --allow-downgrades /files/other.deb")
            after = conversations(box)
        assert load.failures == []
        assert load.rounds > rounds
        print(f"{len(before)} conversations, {load.rounds} rounds, {load.retransmitted} segments sent again")
    finally:
        load.close()
    assert len(before) == load.flows + load.tunnels + load.datagrams
    for held in (between, after):
        assert_counted_on(before, held)


def test_a_downgrade_says_what_it_cannot_carry_over(rig: Rig, defined: Box) -> None:
    defined.ok("apt-get install -y /files/newer.deb")
    before = defined.ok(PID)
    defined.ok(f"{PYTHON} /files/newer_store.py")
    said = defined.ok("apt-get install -y --allow-downgrades /files/this.deb 2>&1")
    assert "newer" in said
    assert "marchproxy: not restarted, see above" in said
    assert defined.ok(PID) == before
    assert b"server" in rig.client.call(fetch, VIP, 80)


def test_a_store_that_the_new_version_cannot_read_leaves_the_old_one_running(rig: Rig, defined: Box) -> None:
    before = defined.ok(PID)
    defined.ok(
        "cp -a /var/lib/marchproxy/marchproxy.db /srv/ && echo broken >/var/lib/marchproxy/marchproxy.db"
    )
    said = defined.run("apt-get install -y /files/newer.deb 2>&1")
    assert said.returncode == 0, said.stdout
    assert "marchproxy: not restarted, see above" in said.stdout
    assert defined.ok(PID) == before
    assert b"server" in rig.client.call(fetch, VIP, 80)
