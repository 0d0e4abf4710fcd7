"""Steps do not notice that coordinators come and go (FAULTS 3, 4)."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from faults.conftest import NewPlace
from faults.crashes import Place
from faults.house import Command, lives, until

RESTARTS = 10
LIVE = 100

TALKING = """\
steps:
  talk: {run: sh talk.sh}
"""
TALK = """\
i=0
trap 'exit 9' TERM
echo "began $PENSTOCK_RUN.$PENSTOCK_STEP.$PENSTOCK_ATTEMPT" >>"${HOME%/*}/ledger"
while [ -e "${HOME%/*}/closed" ]; do i=$((i + 1)); echo "line $i"; sleep 0.005; done
echo "last $i"
exit 7
"""

WAIT = """\
echo "began $PENSTOCK_RUN.$PENSTOCK_STEP.$PENSTOCK_ATTEMPT" >>"${HOME%/*}/ledger"
while [ -e "${HOME%/*}/closed" ]; do sleep 0.2; done
"""

HIDING = """\
setsid sh -c 'while :; do sleep 1; done' &
(setsid sh -c 'trap "" TERM; while :; do sleep 1; done' &)
echo "began $PENSTOCK_RUN.$PENSTOCK_STEP.$PENSTOCK_ATTEMPT" >>"${HOME%/*}/ledger"
while [ -e "${HOME%/*}/closed" ]; do sleep 0.2; done
"""


def closed(place: Place) -> Path:
    gate = place.room / "closed"
    gate.touch()
    return gate


def size(place: Place) -> int:
    return sum(log.stat().st_size for log in place.home.glob("runs/1/*.log"))


def adopted(pid: int) -> int:
    """How many processes a coordinator waits for, by its descriptors."""
    found = 0
    for name in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += name.readlink().name == "anon_inode:[pidfd]"
        except FileNotFoundError:
            continue
    return found


def until_adopted(place: Place, command: Command) -> None:
    until(lambda: place.coordinator() == command.pid and adopted(command.pid) > 0, "the step is adopted")


def until_talks_on(place: Place) -> None:
    before = size(place)
    until(lambda: size(place) > before, "the step goes on")


@pytest.mark.parametrize("contain", [False, True])
def test_a_step_lives_through_ten_restarts(new_place: NewPlace, *, contain: bool) -> None:
    """One step under eleven coordinators, ten of them killed: one attempt, its exit code, a log without a gap."""
    place = new_place(penstock_yaml=f"name: talk\n{TALKING}", talk_sh=TALK, contain=contain)
    gate = closed(place)
    command = place.type("run")
    place.noted("began")
    for _ in range(RESTARTS):
        until_adopted(place, command)
        until_talks_on(place)
        command.kill()
        until_talks_on(place)
        command = place.type("resume")
    gate.unlink()
    command.ends(1)
    assert place.rows("SELECT reason, exit_code FROM attempts WHERE step = 'talk'") == [("exit", 7)]
    assert len(place.ledger()) == 1
    *lines, last = place.type("logs", "1", "talk").ends().splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert last == f"last {len(lines)}"


def test_a_hundred_live_steps_are_adopted(new_place: NewPlace) -> None:
    """The command that follows a killed one waits for the very processes of its 100 steps; each passes once."""
    steps = "".join(f"  s{n}: {{run: sh wait.sh, resources: {{cpu: 0.01}}}}\n" for n in range(LIVE))
    place = new_place(penstock_yaml=f"name: many\nsteps:\n{steps}", wait_sh=WAIT)
    gate = closed(place)
    command = place.type("run")
    place.noted("began", LIVE)
    until(
        lambda: place.rows("SELECT count(*) FROM attempts WHERE handle IS NOT NULL AND step LIKE 's%'") == [(LIVE,)],
        "their starts are recorded",
    )
    command.kill()
    begun = time.monotonic()
    command = place.type("resume")
    until(lambda: adopted(command.pid) >= LIVE, "all are adopted")
    sys.stdout.write(f"\n{LIVE} steps adopted {time.monotonic() - begun:.2f} s after the start of resume\n")
    gate.unlink()
    command.ends()
    assert place.rows("SELECT DISTINCT number, reason FROM attempts") == [(1, "exit")]
    assert len(place.ledger()) == LIVE


@pytest.mark.parametrize("contain", [False, True])
def test_a_killed_shim_takes_its_tree_along(new_place: NewPlace, *, contain: bool) -> None:
    """Kill -9 of a shim whose step hid processes from it: seen soon, nothing of it left, the attempt is lost."""
    retry = "retry: {max: 1, on: [lost], backoff: 10ms}"
    pipeline = f"name: hiding\nsteps:\n  hide: {{run: sh hide.sh, {retry}}}\n"
    place = new_place(penstock_yaml=pipeline, hide_sh=HIDING, contain=contain)
    gate = closed(place)
    command = place.type("run")
    place.noted("began")
    shim = place.until_recorded(1, "hide")
    before = place.step(1, "hide")
    killed = time.time()
    os.kill(shim, signal.SIGKILL)
    at = place.until_event("attempt", "end", "1.hide.1")[1]
    sys.stdout.write(f"\nthe loss of a shim was seen after {at - killed:.3f} s\n")
    assert not any(map(lives, before)), "what the first attempt was is gone before its end is told"
    place.noted("began", 2)
    gate.unlink()
    command.ends()
    assert place.attempts(1, "hide") == ["lost", "exit"]
