"""The scenes. Each does something real, shows it, and raises `RigError` where it comes out wrong."""

import time
from contextlib import ExitStack

from demo.actors import Actor, ask, browse, chat, expect, knock
from demo.board import Board
from demo.crash import GUEST, survive
from demo.screen import Screen
from demo.stage import Stage
from rig import Appliance, Rig
from rig.network import LISTEN4, LISTEN6
from rig.servers import start_echo, start_http

PICTURE = f"""
      office 10.1.0.2  ╮
             fd01::2   │   {LISTEN4} ╭────────────╮ 10.2.0.1
      lab    10.1.0.66 ├────────────┤ MarchProxy ├──────────── server 10.2.0.2
      guest  10.1.0.99 ╯   {LISTEN6}  ╰────────────╯ fd02::1           fd02::2
"""
LAB = "10.1.0.66"
CONFIGURATION = """
init
interface add inside0 --role inside
interface add outside0 --role outside
service add office --address 10.1.0.0/26 --address fd01::/64
service add lab --address 10.1.0.66
service add web --address 10.2.0.2 --address fd02::2 --port 80
service add echo --address 10.2.0.2 --address fd02::2 --port 7
mapping add web --from office --to web --protocol tcp --listen *:80
mapping add echo --from office --to echo --protocol tcp,udp --listen *:7
mapping add no-lab --from lab --to web --protocol tcp --listen *:80 --action deny
"""
TRAFFIC_SECONDS = 6.0


def play(screen: Screen) -> None:
    """All scenes, on a rig that is gone afterwards."""
    screen.heading("Three hosts, made of network namespaces")
    with Rig() as rig, Appliance(rig) as appliance:
        rig.client.add_address("eth0", f"{LAB}/24", f"{GUEST}/24")
        start_http(rig.server, 80)
        start_echo(rig.server, 7)
        screen.show(PICTURE.strip("\n"))
        stage = Stage(rig, appliance, screen)
        configure(stage)
        carry(stage)
        explain(stage)
        if appliance.json("status")["tier"] == "kernel":
            survive(stage)
        else:
            screen.say("Without BPF the daemon carries all itself: there is no crash to survive here.")
        clean_up(stage)


def configure(stage: Stage) -> None:
    """An operator says who may talk to whom, and starts the daemon."""
    stage.screen.heading("An operator says who may talk to whom")
    for line in CONFIGURATION.strip().splitlines():
        stage.type(*line.split())
    stage.start()
    status = stage.appliance.json("status", check=False)
    expect(not status["problems"], f"the appliance complains: {'; '.join(status['problems'])}")
    attached = [f"{one['name']} ({one['attached']})" for one in status["interfaces"] if one["attached"]]
    how = ", ".join(attached) or status["tier_reason"]
    stage.screen.right(f"serving on the {status['tier']} tier: {how}")


def carry(stage: Stage) -> None:
    """Clients talk, allowed and not; the table shows what the appliance says about them."""
    stage.screen.heading("Clients talk: HTTP, TCP and UDP, IPv4 and IPv6; two are not allowed to")
    client, board = stage.rig.client, Board()
    allowed = [
        Actor(client, f"{what.__name__} at {address}", what(address))
        for what in (browse, chat, ask)
        for address in (LISTEN4, LISTEN6)
    ]
    refused = [Actor(client, f"http from {source}", knock(LISTEN4, source)) for source in (LAB, GUEST)]
    with ExitStack() as stack:
        refresh = stack.enter_context(stage.screen.live(board))
        for actor in (*allowed, *refused):
            stack.enter_context(actor)
        deadline = time.monotonic() + TRAFFIC_SECONDS
        while time.monotonic() < deadline:
            look(stage, board)
            refresh()
    judge(stage, board, allowed, refused)


def look(stage: Stage, board: Board) -> None:
    """Ask the real commands."""
    json = stage.appliance.json
    board.update(json("status", check=False), json("flows"), json("flows", "--denied"))


def judge(stage: Stage, board: Board, allowed: list[Actor], refused: list[Actor]) -> None:
    """Whether clients and appliance tell the same story."""
    carried = {(kind.mapping, kind.protocol, kind.family) for kind in board.carried()}
    for mapping, protocol in (("web", "tcp"), ("echo", "tcp"), ("echo", "udp")):
        for family in ("IPv4", "IPv6"):
            seen = (mapping, protocol, family) in carried
            expect(seen, f"flows shows no {protocol} of {mapping} over {family}")
    reasons = {(kind.source, kind.reason) for kind in board.refused()}
    for source, reason in ((LAB, "DENY_MAPPING"), (GUEST, "NO_MAPPING")):
        expect((source, reason) in reasons, f"flows --denied does not show {source} with {reason}")
    answered, turned_away = (sum(actor.done for actor in actors) for actors in (allowed, refused))
    stage.screen.right(f"{answered:,} questions of the office answered, none lost")
    stage.screen.right(f"{turned_away:,} attempts of lab and guest refused at once")


def explain(stage: Stage) -> None:
    """Why: asked of the appliance."""
    stage.screen.heading("Why is the guest refused?")
    question = ("explain", "--from", GUEST, "--to", LISTEN4, "--protocol", "tcp", "--port", "80")
    stage.screen.command("marchproxy", *question)
    result = stage.appliance.cli(*question, check=False)
    stage.screen.output(result.stdout)
    expect(result.returncode == 10, f"explain ended with {result.returncode}, not with 10 for a denial")


def clean_up(stage: Stage) -> None:
    """Nothing is left in the kernel."""
    stage.screen.heading("And out again")
    stage.appliance.stop()
    stage.type("detach", "--yes")
    left = [path for path in stage.appliance.bpffs.rglob("*") if not path.is_dir()]
    expect(not left, f"pins are left: {', '.join(map(str, left))}")
    stage.screen.right("programs, pins and flows are gone; the hosts follow")
