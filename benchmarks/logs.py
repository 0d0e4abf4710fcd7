"""What a log costs: a step that prints much beside a plain redirect, a follower's delay, and a flood under its limit.

    python benchmarks/logs.py [--megabytes 200] [--rounds 5] [--lines 40] [--flood 2]

- A step prints 200 MB of text: the step's time, as Penstock recorded it, and that of the whole `penstock run`, both
  minus those of a step that prints nothing. `sh -c 'cat ...' > file` is the yardstick. The same with a secret, so that
  all goes through the masker, is shown apart.
- A follower (`penstock logs -f`) sees the lines of a step that says when it printed each.
- `--flood N` prints N GB into a log that may keep 256 MiB: peak memory of Penstock and the room taken on the disk.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from side_by_side import (
    PENSTOCK,
    Taken,
    by_turns,
    environment,
    new_home,
    prepared_home,
    repository,
    run,
    scratch,
    table,
    taken,
    two_processors,
    until,
)

TALKER = """\
import pathlib, time
print("ready", flush=True)
while not pathlib.Path({go!r}).exists():
    time.sleep(0.01)
for _ in range({lines}):
    print(time.time_ns(), flush=True)
    time.sleep(0.05)
"""


def pipeline(command: str, secrets: str = "[]") -> dict[str, str]:
    """One step; JSON writes the command so that YAML reads it as it is."""
    return {"penstock.yaml": f"name: talk\nsteps:\n  say: {{run: {json.dumps(command)}, secrets: {secrets}}}\n"}


def big_file(place: Path, megabytes: int) -> Path:
    """Numbered lines of 100 bytes."""
    path = place / "big.txt"
    with path.open("w") as out:
        for million in range(megabytes):
            out.writelines(f"{million:08d} {n:90d}\n" for n in range(10_000))
    return path


# --- much output -------------------------------------------------------------------------------------------------


def step_seconds(home: Path) -> float:
    """How long the step of the only run took, by the store."""
    with sqlite3.connect(f"file:{home / 'penstock.db'}?mode=ro", uri=True) as store:
        (took,) = store.execute("SELECT max(ended - created) FROM attempts WHERE step = 'say'").fetchone()
    return float(took)


class Printing:
    """Runs of one step in new homes; remembers the peak memory."""

    def __init__(self, place: Path, variables: Mapping[str, str]) -> None:
        self._place, self._home = place, place / "home"
        self._variables = {**environment(self._home), **variables}
        self.peaks: dict[str, int] = {}

    def run(self, project: Path) -> Taken:
        """One run; all files written before are on the disk, so that nobody pays for others."""
        new_home(self._place, self._home)
        os.sync()
        took = taken((*PENSTOCK, "run"), project, self._variables)
        self.peaks[project.name] = max(took.memory, self.peaks.get(project.name, 0))
        return took

    def step(self, project: Path, silent: Path) -> float:
        self.run(silent)
        nothing = step_seconds(self._home)
        self.run(project)
        return step_seconds(self._home) - nothing

    def command(self, project: Path, silent: Path) -> float:
        return self.run(project).seconds - self.run(silent).seconds


def redirect(place: Path, big: Path) -> float:
    """The yardstick: a shell that writes the same into a new file."""
    out = place / "plain.log"
    out.unlink(missing_ok=True)
    os.sync()
    return taken(("sh", "-c", f"{printer(big)} >{out}"), place, environment(place)).seconds


def printer(big: Path) -> str:
    """What prints the file, as programs print: `cat` has the kernel copy one file to another, and prints nothing."""
    return f"head -c {big.stat().st_size} {big}"


def much(place: Path, megabytes: int, rounds: int) -> None:
    """A step that prints much, beside a redirect; two tables and the memory."""
    big = big_file(place, megabytes)
    silent = repository(place / "silent", pipeline("true"))
    plain = repository(place / "plain", pipeline(printer(big)))
    masked = repository(place / "masked", pipeline(printer(big), "[TOKEN]"))
    command = (*PENSTOCK, "secret", "set", "TOKEN")
    subprocess.run(command, cwd=masked, env=environment(place / "prepared-home"), input=b"hunter2-hunter2", check=True)
    printing = Printing(place, {"PENSTOCK_CONTAIN": "session"})
    contenders = {
        "sh, redirect": partial(redirect, place, big),
        "penstock, the step": partial(printing.step, plain, silent),
        "penstock, the command": partial(printing.command, plain, silent),
        "penstock, the step, masked": partial(printing.step, masked, silent),
    }
    table(f"a step that prints {megabytes} MB", by_turns(contenders, rounds), "sh, redirect", "s", 1)
    print("  promised: at most 1.1× (masked apart)")
    for name, peak in printing.peaks.items():
        print(f"  peak memory, {name:<8} {peak / 1e6:6.0f} MB")


# --- a follower --------------------------------------------------------------------------------------------------


def delays(place: Path, lines: int, contain: str) -> list[float]:
    """Seconds from the moment a step prints a line to the moment the follower has it."""
    go = place / f"go-{contain}"
    script = TALKER.format(lines=lines, go=str(go))
    project = repository(place / f"talk-{contain}", {**pipeline("python talk.py"), "talk.py": script})
    home = place / "home"
    new_home(place, home)
    variables = {**environment(home), "PENSTOCK_CONTAIN": contain}
    with subprocess.Popen(
        (*PENSTOCK, "run"), cwd=project, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        until(lambda: b"ready" in b"".join(log.read_bytes() for log in home.glob("runs/1/*.log")), "the first line")
        command = (*PENSTOCK, "logs", "1", "say", "-f")
        with subprocess.Popen(command, cwd=project, env=variables, stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"ready\n"
            go.touch()
            found = [(time.time_ns() - int(line)) / 1e9 for line in follower.stdout]
        assert running.wait() == 0
    assert len(found) == lines, f"the follower saw {len(found)} of {lines} lines"
    return found


def following(place: Path, lines: int) -> None:
    """Print the delays of both kinds of containment."""
    print(f"\na line reaches `penstock logs -f` ({lines} lines, one each 50 ms)")
    for contain in ("session", ""):
        found = [d * 1000 for d in delays(place, lines, contain)]
        name = contain or "namespace"
        print(f"  {name:<10} median {statistics.median(found):6.1f} ms   largest {max(found):6.1f} ms")
    print("  promised: within 100 ms")


# --- a flood -----------------------------------------------------------------------------------------------------


def flood(place: Path, gigabytes: float) -> None:
    """Print memory and room of a step that says more than a log may keep."""
    say = f"echo first; yes a line of a flood that does not end | head -c {int(gigabytes * 1e9)}; echo last"
    project = repository(place / "flood", pipeline(say))
    home = place / "home"
    new_home(place, home)
    most, began = 0, time.perf_counter()
    running = subprocess.Popen(
        (*PENSTOCK, "run"), cwd=project, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pid = 0
    while not pid:
        pid, status, usage = os.wait4(running.pid, os.WNOHANG)
        most = max(most, sum(_room(path) for path in home.glob("runs/1/*.log")))
        time.sleep(0.02)
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0
    print(f"\na flood of {gigabytes:g} GB into one log: {time.perf_counter() - began:.1f} s")
    print(f"  on the disk: at most {most / 1e6:.0f} MB while it ran; peak memory {usage.ru_maxrss / 1e3:.0f} MB")
    until(lambda: any(home.glob("runs/1/*.log.zst")), "the compression")
    kept = sum(_room(path) for path in home.glob("runs/1/*.log.zst"))
    shown = place / "shown"
    with shown.open("wb") as out:
        logs = subprocess.Popen((*PENSTOCK, "logs", "1", "say"), cwd=project, env=environment(home), stdout=out)
        _, _, usage = os.wait4(logs.pid, 0)
        logs.returncode = 0
    print(f"  afterwards {kept / 1e6:.1f} MB (zstd)")
    print(f"  `penstock logs` shows {shown.stat().st_size / 1e6:.0f} MB; peak memory {usage.ru_maxrss / 1e3:.0f} MB")
    run(("grep", "-aq", "left out (log limit)", str(shown)), place, environment(home))


def _room(path: Path) -> int:
    """Bytes that a file takes on the disk; holes take none."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--flood", type=float, default=0, metavar="GB", help="print so much more into a capped log")
    asked = parser.parse_args()
    two_processors()
    with scratch() as place:
        prepared_home(place)
        following(place, asked.lines)
        much(place, asked.megabytes, asked.rounds)
        if asked.flood:
            flood(place, asked.flood)
    return 0


if __name__ == "__main__":
    sys.exit(main())
