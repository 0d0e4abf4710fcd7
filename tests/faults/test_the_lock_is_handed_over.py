"""Commands killed and stopped at random: one coordinates at a time, and no run is started twice (FAULTS 11)."""

import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.conftest import NewPlace
from faults.crashes import RETRY, STEP, Place, doubled, lost
from faults.forks import placed
from faults.house import Command, until

ROUNDS = 25
FOLLOWERS = 4
HELD = 5.0
"""Seconds after which whatever is stopped goes on: it may hold a lock that is held for a moment only."""
PRIVATE = ("coordinator.lock", "penstock.db", "penstock.db-wal", "penstock.db-shm", "poke")

PIPELINE = f"""\
name: handed
steps:
  a: {{run: sh step.sh a, {RETRY}}}
  b: {{run: sh step.sh b, needs: a, {RETRY}}}
"""


def no_shim_holds_a_thing(place: Place) -> None:
    """No process that was placed for a home has its lock, its database or its FIFO."""
    private = {str(place.home / name) for name in PRIVATE}
    for pid, name, _ in placed(str(place.home)):
        try:
            held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH115, PTH208
        except OSError:
            continue  # it has just ended
        assert not held & private, f"{name} holds {held & private}"


class Hands:
    """Commands that come and go; `taken` are the seconds from the death of a coordinator to the next one."""

    def __init__(self, place: Place, dice: random.Random) -> None:
        self._place = place
        self._dice = dice
        self._stopped: list[Command] = []
        self.taken: list[float] = []

    def living(self) -> list[Command]:
        return [command for command in self._place.commands if command.process.poll() is None]

    def awake(self) -> list[Command]:
        return [command for command in self.living() if command not in self._stopped]

    def fill(self) -> None:
        """As many commands as there should be, each following."""
        while len(self.living()) < FOLLOWERS:
            again = bool(self._place.rows("SELECT 1 FROM runs WHERE status IN ('queued', 'running')"))
            self._place.type(*(("resume",) if again and self._dice.random() < 0.5 else ("run", "--no-cache")))

    def play(self) -> None:
        """One thing to one command."""
        follower = self._dice.choice(self.living())
        holder = self._place.coordinator()
        match self._dice.choice(["kill", "kill", "kill the holder", "stop", "go on"]):
            case "kill":
                follower.kill()
            case "kill the holder" if holder is not None:
                self._kill(holder)
            case "stop":
                follower.send(signal.SIGSTOP)
                self._stopped.append(follower)
            case "go on" if self._stopped:
                self._stopped.pop().send(signal.SIGCONT)

    def _kill(self, holder: int) -> None:
        """Kill -9 of who coordinates; where another one waits, that takes over."""
        ready = [c for c in self.awake() if c.pid != holder and _waits(c.pid)]
        begun = time.monotonic()
        try:
            os.kill(holder, signal.SIGKILL)
        except ProcessLookupError:
            return  # its run was done, and it ended by itself since it was seen to hold
        if ready:
            self.until(lambda: self._place.coordinator() not in {None, holder}, "another takes over")
            self.taken.append(time.monotonic() - begun)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for it while anybody is awake; what a stopped one holds for a moment is free when it goes on."""
        soon = time.monotonic() + HELD
        while not condition() and self.awake() and time.monotonic() < soon:
            time.sleep(0.005)
        if not condition() and self.awake():
            self.go_on()
        until(lambda: condition() or not self.awake(), what)

    def go_on(self) -> None:
        while self._stopped:
            self._stopped.pop().send(signal.SIGCONT)


def _waits(pid: int) -> bool:
    """Whether a command has opened its home already."""
    try:
        return any(path.readlink().name == "penstock.db" for path in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_followers_killed_and_stopped_at_random(new_place: NewPlace, seed: int) -> None:
    """Kill -9, SIGSTOP and SIGCONT in a random order: every run ends once, every attempt began once, no lock leaks."""
    place = new_place(penstock_yaml=PIPELINE, step_sh=STEP)
    hands = Hands(place, random.Random(seed))  # noqa: S311 - a seeded order, no secret
    for _ in range(ROUNDS):
        hands.fill()
        hands.until(lambda: place.coordinator() is not None, "somebody coordinates")
        no_shim_holds_a_thing(place)
        if hands.living():
            hands.play()
    hands.go_on()
    for command in hands.living():
        command.wait()
    place.type("resume").ends()
    assert not [*lost(place), *doubled(place)]
    assert {status for (status,) in place.rows("SELECT status FROM runs")} == {"passed"}
    if hands.taken:
        median, worst = statistics.median(hands.taken), max(hands.taken)
        sys.stdout.write(
            f"\n{len(hands.taken)} hand-overs, {median * 1000:.0f} ms (median), {worst * 1000:.0f} ms at most\n"
        )
