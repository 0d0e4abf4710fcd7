"""Containers do not notice that coordinators come and go, and none is left behind (FAULTS 3, 4, in an image)."""

import os
import signal
from pathlib import Path

import pytest

import images
from faults.conftest import NewPlace
from faults.crashes import Place
from faults.house import Command, until
from faults.test_steps_outlive_coordinators import until_adopted, until_talks_on
from penstock.runners.container import LABEL

RESTARTS = 3
TALKING = """\
name: talk
runtime: {image: "IMAGE"}
steps:
  talk: {run: sh talk.sh}
"""
TALK = """\
i=0
until [ -e over ]; do i=$((i + 1)); echo "line $i"; sleep 0.01; done
echo "last $i"
exit 7
"""


@pytest.fixture
def talking(new_place: NewPlace, base_image: str) -> Place:
    more = {k: v for k, v in images.engine_variables().items() if k.startswith(("CONTAINER", "DOCKER", "XDG"))}
    return new_place(more=more, penstock_yaml=TALKING.replace("IMAGE", base_image), talk_sh=TALK)


def containers(place: Place) -> list[str]:
    """The containers of a home, running or not."""
    told = images.podman("ps", "--all", "--format", "{{.Labels}}", "--filter", f"label={LABEL}").stdout
    return [line for line in told.splitlines() if str(place.home) in line]


def workspace(place: Place) -> Path:
    return next(place.home.glob("runs/1/work/*/talk.sh")).parent


def begun(place: Place) -> Command:
    """A run whose step talks."""
    command = place.type("run")
    until(lambda: any("line 5" in log.read_text() for log in place.home.glob("runs/1/*.log")), "the step talks")
    until_adopted(place, command)
    return command


def test_a_container_lives_through_restarts(talking: Place) -> None:
    """One step in an image, three coordinators killed: one attempt, its code, a log without a gap."""
    command = begun(talking)
    for _ in range(RESTARTS):
        until_talks_on(talking)
        command.kill()
        until_talks_on(talking)
        command = talking.type("resume")
        until_adopted(talking, command)
    assert len(containers(talking)) == 1
    (workspace(talking) / "over").touch()
    command.ends(1)
    assert talking.rows("SELECT reason, exit_code FROM attempts WHERE step = 'talk'") == [("exit", 7)]
    lines = "".join(log.read_text() for log in sorted(talking.home.glob("runs/1/*.log")) if "line 1" in log.read_text())
    numbers = [int(line.split()[1]) for line in lines.splitlines() if line.startswith("line ")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert f"last {len(numbers)}" in lines
    assert not containers(talking)


def test_everything_killed(talking: Place) -> None:
    """The coordinator, the shim and the engine's client die at once: the attempt is lost, and no container is left."""
    begun(talking).kill()
    client = f"{images.engine().program} run"
    outside = [pid for pid, line in talking.processes().items() if line.startswith(client) or '"container"' in line]
    assert len(outside) == 2
    for pid in outside:
        os.kill(pid, signal.SIGKILL)
    assert len(containers(talking)) == 1
    talking.type("resume").ends(3)
    (row,) = talking.rows("SELECT reason, exit_code FROM attempts WHERE step = 'talk'")
    assert row == ("lost", None)
    assert not containers(talking)


def test_cancel(talking: Place) -> None:
    """A run that is canceled shows it only when its container is gone."""
    command = begun(talking)
    talking.type("cancel", "1").ends(0)
    command.ends(3)
    assert talking.rows("SELECT reason FROM attempts WHERE step = 'talk'") == [("canceled",)]
    assert not containers(talking)
