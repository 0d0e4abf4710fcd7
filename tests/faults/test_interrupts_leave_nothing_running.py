"""Ctrl-C and TERM end what a run started and nothing else; `resume` goes on from there (FAULTS 16 in part)."""

import signal

import pytest

from faults.house import LINES, PRODUCTION, House, until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_step_is_interrupted(house: House, number: signal.Signals) -> None:
    """A signal during a step: exit 130, nothing left, the run is queued; `resume` starts the step anew and passes."""
    project = house.project(environments="")
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.send(number)
    said = command.ends(130)
    assert "penstock resume 1" in said
    assert house.processes() == {}
    assert house.rows("SELECT status FROM runs") == [("queued",)]
    project.open("make")
    house.do(project, "resume")
    assert house.attempts(1, "make") == ["interrupted", "exit"]
    assert house.show()["status"] == "passed"


def test_two_signals_in_quick_succession(house: House) -> None:
    """Ctrl-C twice at once: the same exit code, nothing left, and `resume` passes."""
    project = house.project(environments="")
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.send(signal.SIGINT)
    command.send(signal.SIGINT)
    command.ends(130)
    assert house.processes() == {}
    project.open("make")
    house.do(project, "resume")
    assert house.show()["status"] == "passed"


def test_a_second_signal_waits_for_no_grace(house: House) -> None:
    """A step that ignores TERM ends at the second Ctrl-C, together with what it started far from itself."""
    project = house.project(environments="")
    project.stubborn()
    command = house.start(project, "run")
    for name in ("stubborn", "far"):
        project.until_noted("began", name)
    command.send(signal.SIGINT)
    until(lambda: house.rows("SELECT 1 FROM requests WHERE kind = 'interrupt'"), "the first Ctrl-C is asked for")
    command.send(signal.SIGINT)
    command.ends(130)
    assert house.processes() == {}


def test_tests_with_their_server_are_interrupted(house: House) -> None:
    """Ctrl-C while a test asks the private server ends both; `resume` starts both anew."""
    project = house.project(environments="")
    project.close("ask")
    command = house.start(project, "run")
    project.until_noted("began", "ask")
    command.send(signal.SIGINT)
    command.ends(130)
    assert house.processes() == {}
    project.open("ask")
    house.do(project, "resume")
    assert house.attempts(1, "serve") == ["interrupted", "exit"]
    assert house.attempts(1, "make") == ["exit"]
    assert house.show()["status"] == "passed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_rollout_is_interrupted(house: House, number: signal.Signals) -> None:
    """A signal while new replicas start: these are gone, the old ones serve, `resume` starts new ones and switches."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    before = set(house.processes())
    project.commit("two")
    project.close("serve-production")
    command = house.start(project, "run")
    project.until_noted("began", "serve-production", 4)
    command.send(number)
    command.ends(130)
    assert set(house.processes()) == before
    assert project.serves()["model"] == "one"
    project.open("serve-production")
    house.do(project, "resume")
    assert project.serves()["model"] == "two"
    assert house.statuses() == ["retired", "serving"]
    assert house.show(2)["status"] == "passed"


def test_the_waiting_command_is_interrupted(house: House) -> None:
    """Ctrl-C of a command that does not coordinate ends its own step; the other command's goes on."""
    one, other = house.project("one", ""), house.project("other", "")
    for project in (one, other):
        project.close("make")
    holder = house.start(one, "run")
    one.until_noted("began", "make")
    follower = house.start(other, "run")
    other.until_noted("began", "make")
    follower.send(signal.SIGINT)
    follower.ends(130)
    assert house.step(1, "make")
    assert not house.step(2, "make")
    one.open("make")
    holder.ends()
    assert house.rows("SELECT status FROM runs ORDER BY id") == [("passed",), ("queued",)]
    other.open("make")
    house.do(other, "resume")


def test_the_coordinating_command_is_interrupted(house: House) -> None:
    """Ctrl-C of the command that coordinates ends its own step; the other one's goes on under the other command."""
    one, other = house.project("one", ""), house.project("other", "")
    for project in (one, other):
        project.close("make")
    holder = house.start(one, "run")
    one.until_noted("began", "make")
    follower = house.start(other, "run")
    other.until_noted("began", "make")
    holder.send(signal.SIGINT)
    holder.ends(130)
    assert house.step(2, "make")
    assert not house.step(1, "make")
    other.open("make")
    follower.ends()
    assert house.attempts(2, "make") == ["exit"]
    house.log_is_whole(2, "make")
    one.open("make")
    house.do(one, "resume")


def test_an_interrupted_run_stays_interrupted(house: House) -> None:
    """Another command does not make an interrupted run look as if it ran, and starts nothing of it."""
    project, other = house.project(environments=""), house.project("other", "")
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.send(signal.SIGINT)
    command.ends(130)
    project.open("make")
    house.do(other, "run")
    assert house.rows("SELECT status FROM runs WHERE id = 1") == [("queued",)]
    assert len(project.ledger("began", "make")) == 1
    house.do(project, "resume")
    assert house.show()["status"] == "passed"


def test_a_resume_is_interrupted(house: House) -> None:
    """Ctrl-C of `resume` is as good as of `run`: 130, nothing left, and the next one passes."""
    project = house.project(environments="")
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.kill()
    again = house.start(project, "resume")
    until(lambda: "make" in again.said, "resume shows the step")
    again.send(signal.SIGINT)
    again.ends(130)
    assert house.processes() == {}
    project.open("make")
    house.do(project, "resume")
    assert house.attempts(1, "make") == ["interrupted", "exit"]


def test_the_log_of_an_interrupted_step_is_kept(house: House) -> None:
    """What an interrupted attempt printed stays in the log, before what the next attempt prints."""
    project = house.project(environments="")
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.send(signal.SIGINT)
    command.ends(130)
    project.open("make")
    house.do(project, "resume")
    lines = [line for line in house.do(None, "logs", "1", "make").splitlines() if line.startswith("make line")]
    numbers = [int(line.split()[-1]) for line in lines]
    assert numbers == [*range(1, LINES + 1), *range(1, 2 * LINES + 1)]
