"""Who waits for a request, the lock of a home's coordinator, and the poke that wakes it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

from engine.builders import Command
from penstock.engine.followers import CoordinatorLock, boot_id, is_alive, myself, poke, start_time
from penstock.store.contract import NOBODY


def test_we_are_alive() -> None:
    """The calling process is named by pid, start time and boot, and lives."""
    me = myself()
    assert (me.pid, me.boot_id) == (os.getpid(), boot_id())
    assert is_alive(me)


def test_who_is_not_alive() -> None:
    """Another process with the same number, one of another boot, and nobody are not alive."""
    me = myself()
    assert not is_alive(replace(me, start_time=me.start_time - 1))
    assert not is_alive(replace(me, boot_id="another"))
    assert not is_alive(NOBODY)
    assert start_time(2**22 + 1) is None


def test_a_zombie_is_dead(command: Command) -> None:
    """A command that was killed is dead at once, also before its parent has asked how it ended."""
    follower = command.follower
    assert is_alive(follower)
    command.process.kill()
    os.waitid(os.P_PID, command.process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(follower)
    command.die()
    assert not is_alive(follower)


def test_one_holds_the_lock(tmp_path: Path) -> None:
    """Whoever comes second does not get the lock, and gets it when the first has let go."""
    first, second = CoordinatorLock(tmp_path / "lock"), CoordinatorLock(tmp_path / "lock")
    second.release()
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    assert not first.acquire()
    second.release()


HOLD = """
import sys
from pathlib import Path
from penstock.engine.followers import CoordinatorLock
lock = CoordinatorLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    """The kernel gives the lock back however its holder died."""
    lock = CoordinatorLock(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert not lock.acquire()
        holder.kill()
        holder.wait()
        assert lock.acquire()
        lock.release()


def test_a_poke_never_waits(tmp_path: Path) -> None:
    """A poke is one byte to whoever reads, and nothing where nobody does or the pipe is full."""
    fifo = tmp_path / "poke"
    poke(fifo)
    os.mkfifo(fifo)
    poke(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    poke(fifo)
    assert os.read(reader, 10) == b"!"
    try:
        while os.write(reader, b"." * 65536):
            pass
    except BlockingIOError:
        poke(fifo)
    os.close(reader)
