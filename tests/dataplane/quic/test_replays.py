"""replays: what was said once is not said again, whichever process is asked."""

import os
import subprocess
import sys

from marchproxy.dataplane.quic.replays import SLOTS, WAYS, Replays, share


def test_what_was_said_is_remembered_for_its_time() -> None:
    replays = Replays()
    assert replays.first(b"a", 20.0, 100.0)
    assert not replays.first(b"a", 20.0, 100.0)
    assert not replays.first(b"a", 20.0, 119.9)
    assert replays.first(b"b", 20.0, 119.9)
    assert replays.first(b"a", 20.0, 120.0)
    replays.close()
    replays.close()


def test_who_finds_no_room_is_not_the_first_and_nobody_is_forgotten() -> None:
    replays = Replays()
    said = [number.to_bytes(4) for number in range(SLOTS)]
    taken = [each for each in said if replays.first(each, 20.0, 5.0)]
    assert SLOTS // 2 < len(taken) < SLOTS
    assert not any(replays.first(each, 20.0, 24.0) for each in taken)
    assert sum(replays.first(each, 20.0, 26.0) for each in said[: SLOTS // WAYS]) > SLOTS // WAYS // 2
    replays.close()


def test_processes_know_it_together_and_another_table_is_another() -> None:
    descriptor = share()
    replays = Replays(os.dup(descriptor))
    assert replays.first(b"here", 60.0)
    code = (
        "import sys\nfrom marchproxy.dataplane.quic.replays import Replays\n"
        "replays = Replays(int(sys.argv[1]))\n"
        "print(replays.identity.hex(), *(replays.first(each, 60.0) for each in (b'here', b'there')))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(descriptor)],
        pass_fds=[descriptor],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == [replays.identity.hex(), "False", "True"]
    assert not replays.first(b"there", 60.0)
    assert Replays().identity != replays.identity
    os.close(descriptor)
    replays.close()


def test_who_does_not_get_the_lock_is_not_the_first() -> None:
    descriptor = share()
    code = (
        "import fcntl, sys\nfcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(descriptor)],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        replays = Replays(descriptor)
        assert not replays.first(b"a", 60.0)
        holder.kill()
    assert replays.first(b"a", 60.0)
    replays.close()
