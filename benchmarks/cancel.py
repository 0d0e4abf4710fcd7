"""How long it takes until nothing is left of a run that is canceled, whatever its steps do to stay alive.

    python benchmarks/cancel.py [--rounds 3]

The victims: one that ignores TERM; one that left its session with a double fork; one that emptied its environment; one
that forks again and again while it is ended; and one that goes at once when it is asked to. The clock begins with
`penstock cancel` and ends when no process of the run is left on the machine (each carries a word of its own in its
arguments). Both kinds of containment take turns. The promise: 0 survivors within the grace of 10 s and 2 s more; a
victim that obeys is gone as soon as the command has come through, which is the floor shown first.
"""

import argparse
import itertools
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from side_by_side import (
    PENSTOCK,
    by_turns,
    environment,
    new_home,
    prepared_home,
    repository,
    scratch,
    table,
    two_processors,
    until,
)

GRACE = 10.0
"""Seconds between TERM and KILL: what a stubborn victim costs at least."""
LONGEST = 60.0

# Each sleeps under a name that holds the word, so that it is found whatever it did to session and environment.
OBEDIENT = {"obedient": "exec -a WORD-obedient sleep 600"}
STUBBORN = {
    "ignores": "trap '' TERM INT HUP; exec -a WORD-ignores sleep 600",
    "detached": "(setsid bash -c \"trap '' TERM; exec -a WORD-detached sleep 600\" &); exec -a WORD-parent sleep 600",
    "emptied": "exec env -i bash -c \"trap '' TERM; exec -a WORD-emptied sleep 600\"",
    "forks": "trap '' TERM; while :; do (exec -a WORD-forks sleep 5) & sleep 0.02; done",
}


def pipeline(victims: Mapping[str, str], word: str) -> str:
    head = "resources: {cpu: 0.1}\n    shell: bash\n    run: |\n      "
    lines = [f"  {name}:\n    {head}{text}\n" for name, text in victims.items()]
    return "name: victims\nsteps:\n" + "".join(lines).replace("WORD", word)


def living(word: str) -> set[str]:
    """What of the word's processes lives: the last part of their names."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        if name.startswith(word):
            found.add(name.removeprefix(f"{word}-"))
    return found


def canceled(place: Path, victims: Mapping[str, str], contain: str, counter: "itertools.count[int]") -> float:
    """Seconds from `penstock cancel` to the end of the last process."""
    word = f"victim{secrets.token_hex(6)}"
    project = repository(place / f"project-{next(counter)}", {"penstock.yaml": pipeline(victims, word)})
    home = place / "home"
    new_home(place, home)
    variables = {**environment(home), "PENSTOCK_CONTAIN": contain}
    quiet = subprocess.DEVNULL
    with subprocess.Popen((*PENSTOCK, "run"), cwd=project, env=variables, stdout=quiet, stderr=quiet) as running:
        try:
            until(lambda: living(word) >= set(victims), "the start of all victims")
        except AssertionError:
            running.terminate()
            raise
        began = time.perf_counter()
        with subprocess.Popen((*PENSTOCK, "cancel", "1"), cwd=project, env=variables, stdout=quiet) as asked:
            while (left := living(word)) and time.perf_counter() - began < LONGEST:
                time.sleep(0.005)
            seconds = time.perf_counter() - began
            assert not left, f"after {LONGEST:g} s there live {', '.join(sorted(left))}"
            asked.wait()
        running.wait()
    assert not living(word), "canceled was told before nothing was left"
    return seconds


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    two_processors()
    counter = itertools.count()
    with scratch() as place:
        prepared_home(place)
        for title, victims in (("a victim that obeys", OBEDIENT), ("victims that do not", STUBBORN)):
            turns = {
                contain or "namespace": partial(canceled, place, victims, contain, counter)
                for contain in ("", "session")
            }
            table(f"canceled until nothing is left: {title}", by_turns(turns, asked.rounds, warm=False), "", "s", 1)
    print(f"  promised: nothing left within {GRACE:g} s of grace and 2 s more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
