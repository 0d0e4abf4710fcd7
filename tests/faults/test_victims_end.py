"""Steps that do all they can to stay are gone when `cancel` says so, whatever holds them together (FAULTS 16, 18)."""

import os
import sys
import time
from pathlib import Path

import pytest

from faults.conftest import NewPlace
from faults.crashes import Place
from faults.house import lives, until
from penstock.runners import containment, groups

GRACE = 10.0

# Each leaves processes with a name of their own; the last two empty their environment, so that no marker tells.
HIDES = """\
sleep=$PWD/victim-$PENSTOCK_RUN
cp "$(command -v sleep)" "$sleep"
trap '' TERM INT HUP
"$sleep" 1001 &
(setsid sh -c "trap '' TERM; '$sleep' 1002 & wait" &)
(setsid sh -c "('$sleep' 1003 &)" &)
(setsid sh -c "trap '' TERM; while :; do setsid '$sleep' 1004 & '$sleep' 0.05; done" &)
"""
EMPTIES = """\
(setsid env -i sh -c "trap '' TERM; '$sleep' 1005 & wait" &)
(setsid env -i sh -c "trap '' TERM; while :; do setsid '$sleep' 1006 & '$sleep' 0.05; done" &)
"""
WAITS = 'echo up >"${HOME%/*}/up"; while :; do "$sleep" 1; done\n'
NAMES = {1001, 1002, 1003, 1004}

WAYS = {
    "unshare": (set(), True, EMPTIES, {1005, 1006}),
    "bwrap": ({"unshare"}, True, EMPTIES, {1005, 1006}),
    "cgroup": ({"unshare", "bwrap"}, True, EMPTIES, {1005, 1006}),
    "session": (set(), False, "", set()),
}


def tools(folder: Path, without: set[str]) -> str:
    """A PATH with every program of this machine but some."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name not in without and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


def survivors(place: Place) -> dict[int, str]:
    """Living processes of the victim, by the program that only it has."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208 - names are enough
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"victim-1" in line and os.fsencode(place.home) in line and lives(pid):
            found[pid] = line.replace(b"\0", b" ").decode()
    return found


def skip_without(way: str, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Skip where this machine has not what is to be tested."""
    monkeypatch.setenv("PATH", path)
    found = containment.find_containment()
    monkeypatch.undo()
    wanted = {"unshare": "(unshare", "bwrap": "(bwrap", "cgroup": "cgroup"}.get(way, "")
    if wanted not in found.name:
        pytest.skip(f"no {way} on this machine, but {found.name}")


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_canceled_step_is_left(
    new_place: NewPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Sessions, double forks, deaf to TERM, empty environments, forks while killed: all gone before it is canceled."""
    without, contain, more, names = WAYS[way]
    path = tools(tmp_path / "tools", without)
    skip_without(way, monkeypatch, path)
    place = new_place(
        penstock_yaml="name: v\nsteps:\n  stay: {run: sh stay.sh}\n", stay_sh=HIDES + more + WAITS, contain=contain
    )
    place.repo.environment["PATH"] = path
    command = place.type("run")
    until((place.room / "up").exists, "the victim stands")
    until(
        lambda: (
            NAMES | names
            <= {int(word) for line in survivors(place).values() for word in line.split() if word.isdigit()}
        ),
        "all of it lives",
    )
    begun = time.monotonic()
    canceling = place.type("cancel", "1")
    until(lambda: place.rows("SELECT 1 FROM steps WHERE status = 'canceled' AND name = 'stay'"), "it is canceled")
    assert survivors(place) == {}
    sys.stdout.write(f"\n{way}: canceled {time.monotonic() - begun - GRACE:.2f} s after the grace\n")
    canceling.ends()
    command.ends(3)


HOG = """\
import time
held = []
for _ in range(64):
    held.append(bytearray(b'x') * (8 << 20))
    time.sleep(0.01)
"""


def test_a_step_out_of_memory_ends_alone(new_place: NewPlace) -> None:
    """A step over its limit ends as oom, which its reason says; its neighbour, the coordinator and others go on."""
    pipeline = """\
name: hungry
steps:
  hog: {run: python3 hog.py, resources: {cpu: 0.1, memory: 100MiB}}
  neighbour: {run: sleep 1; echo fine, resources: {cpu: 0.1}}
  killed: {run: 'kill -9 $$', resources: {cpu: 0.1}}
"""
    place = new_place(penstock_yaml=pipeline.replace("sleep 1; echo fine", '"sleep 1; echo fine"'), hog_py=HOG)
    command = place.type("run")
    command.ends(1)
    ends = dict(place.rows("SELECT step, reason FROM attempts WHERE step != 'check'"))
    assert ends == {"hog": "oom", "neighbour": "exit", "killed": "exit"}
    reasons = dict(place.rows("SELECT name, reason FROM steps WHERE status = 'failed'"))
    assert reasons == {"hog": "ran out of memory", "killed": "was killed by signal 9"}
    held = groups.memory_base()
    sys.stdout.write(f"\nheld by {'a cgroup' if held else 'us'}\n")
