"""A soak of random kills: commands, shims, steps, servers and the router die with -9, and nothing may be lost.

    python benchmarks/soak.py [--kills 10000] [--seed 1] [--minutes 600] [--batch 50]

Releases of a small served project are asked for one after another, several at a time, while something of the home is
killed every few dozen milliseconds. After each batch of kills everything is let come to its end and looked over: every
request has one run, every run and attempt an end, nothing happened twice, every log is whole, the journal contradicts
nothing, production answers, and after `stop` no process is left. The exit code says whether all of that held.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from faults.crashes import Place, Workshop, doubled, lost, unserved
from faults.forks import placed
from faults.house import Command

COMMANDS = 3
"""Commands that follow at once, at most."""

PATIENCE = 60.0
"""Seconds after which what does not end is stuck."""


@dataclass
class Tally:
    """What was killed, and what is wrong."""

    killed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    runs: int = 0
    slowest: float = 0.0


def victims(place: Place) -> list[tuple[str, int]]:
    """Everything of a home that can be killed, with a word for what it is."""
    found = [("command", c.pid) for c in place.commands if c.process.poll() is None]
    for pid, name, leads in placed(str(place.home)):
        what = {"release": "server", "router": "router"}.get(name.partition("-")[0].partition(".")[0], "step")
        found.append((f"{what}'s shim" if leads else what, pid))
    return found


def kill(place: Place, dice: random.Random, tally: Tally) -> None:
    """Kill -9 of something. Commands are spared four times of five: else they would never come to place anything."""
    found = victims(place)
    kinds = sorted({what for what, _ in found})
    kind = dice.choice(kinds) if kinds else None
    if kind is None or (kind == "command" and dice.random() < 0.8):
        return
    with suppress(ProcessLookupError):
        os.kill(dice.choice([pid for what, pid in found if what == kind]), signal.SIGKILL)
        tally.killed[kind] += 1


def ask(place: Place, dice: random.Random) -> None:
    """Another command, where there are not enough."""
    if sum(command.process.poll() is None for command in place.commands) < COMMANDS:
        verbs = (("run",), ("run", "--no-cache"), ("run", "--ref", "one"), ("resume",), ("resume",))
        place.type(*dice.choice(verbs))


def ended(command: Command) -> bool:
    """Whether a command came to its end."""
    try:
        command.process.wait(PATIENCE)
    except Exception:  # noqa: BLE001 - a Popen's and a fork's differ
        return False
    return True


def come_to_rest(place: Place, tally: Tally) -> None:
    """Let everything end; then a run must pass, and be served."""
    begun = time.monotonic()
    for command in [*place.commands, place.type("resume")]:
        if not ended(command):
            tally.wrong.append(f"stuck: {' '.join(command.arguments)}\n{command.said}")
            return
    tally.slowest = max(tally.slowest, time.monotonic() - begun)
    command = place.type("run")
    if not ended(command) or command.process.poll() != 0:
        tally.wrong.append(f"after all of it: {command.said}")


def batch(workshop: Workshop, dice: random.Random, kills: int, tally: Tally) -> None:
    """So many kills in a home of its own, and a look at what became of it."""
    place = workshop.place("serve", contain=dice.random() < 0.3)
    place.type("run", "--ref", "one").ends()
    until = tally.killed.total() + kills
    while tally.killed.total() < until:
        ask(place, dice)
        time.sleep(dice.random() * 0.3)
        kill(place, dice, tally)
    come_to_rest(place, tally)
    tally.wrong += [*lost(place), *doubled(place), *unserved(place, "serve", workshop.port)]
    tally.runs += int(place.rows("SELECT count(*) FROM runs")[0][0])
    try:
        place.gone()
    except AssertionError as error:
        tally.wrong.append(str(error))


def main() -> int:
    """0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description="Kill at random, and look whether anything is lost.")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--batch", type=int, default=50)
    asked = parser.parse_args()
    dice, tally = random.Random(asked.seed), Tally()  # noqa: S311 - a seeded order, no secret
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder, Workshop(Path(folder)) as workshop:
        while tally.killed.total() < asked.kills and time.monotonic() - begun < asked.minutes * 60:
            before = len(tally.wrong)
            batch(workshop, dice, min(asked.batch, asked.kills - tally.killed.total()), tally)
            for line in tally.wrong[before:]:
                print(line, file=sys.stderr)
            print(f"\r{tally.killed.total()} kills ", end="", file=sys.stderr, flush=True)
    print(f"\n{tally.killed.total()} kills in {time.monotonic() - begun:.0f} s, {tally.runs} runs")
    for what, count in tally.killed.most_common():
        print(f"  {what:<16}{count:>7}")
    print(f"at rest after {tally.slowest:.1f} s at most; wrong: {len(tally.wrong)}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
