"""A command killed with -9 at any moment loses nothing: its processes go on, and `resume` finishes (FAULTS 3, 4, 5)."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from faults.house import PIPELINE, PRODUCTION, House, ask, lives, until


def passed(house: House, run: int = 1) -> None:
    """The run passed, no step was attempted twice, and each log is whole."""
    shown = house.show(run)
    assert shown["status"] == "passed"
    assert all(step["attempts"] <= 1 for step in shown["steps"].values())
    for step in ("make", "ask"):
        house.log_is_whole(run, step)


def test_a_step_goes_on_without_its_command(house: House) -> None:
    """A step whose command was killed runs to its end; `resume` finds how it ended, with every line of its log."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    before = house.step(1, "make")
    command.kill()
    assert before & house.step(1, "make")
    project.open("make")
    project.until_noted("ended", "make")
    house.do(project, "resume")
    passed(house)
    assert len(project.ledger("began", "make")) == 1


def test_a_living_step_is_taken_up(house: House) -> None:
    """`resume` takes up a step that still runs: the same process, the same attempt."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    before = house.step(1, "make")
    command.kill()
    again = house.start(project, "resume")
    until(lambda: "make" in again.said, "resume shows the step")
    assert before & house.step(1, "make")
    project.open("make")
    again.ends()
    passed(house)
    assert len(project.ledger("began", "make")) == 1


def test_a_step_that_ended_unseen_is_not_repeated(house: House) -> None:
    """A command killed after a step ended and before it saw so: the step is green by its record alone."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.send(signal.SIGSTOP)
    project.open("make")
    project.until_noted("ended", "make")
    command.kill()
    house.do(project, "resume")
    passed(house)
    assert len(project.ledger("began", "make")) == 1


def test_the_private_server_goes_on(house: House) -> None:
    """The server that tests use answers while nobody coordinates, and it is the one that `resume` goes on with."""
    project = house.project()
    project.close("ask")
    command = house.start(project, "run")
    step = project.until_noted("began", "ask")
    command.kill()
    server = project.until_noted("began", "serve-private")
    assert ask(int(step.url.rpartition(":")[2]))["server"] == server.server
    project.open("ask")
    project.until_noted("ended", "ask")
    house.do(project, "resume")
    passed(house)
    assert len(project.ledger("began", "serve-private")) == 1
    assert not house.step(1, "serve")


def test_a_server_that_was_being_ended_was_well(house: House) -> None:
    """A command killed while it ends the private server after the last test: the run still passes."""
    project = house.project(environments="")
    command = house.start(project, "run")
    project.until_noted("ended", "ask")
    until(lambda: not house.step(1, "serve"), "the private server is gone")
    command.kill()
    if house.rows("SELECT status FROM runs") != [("passed",)]:
        house.do(project, "resume")
    passed(house)


def test_before_the_switch_the_old_release_serves_on(house: House) -> None:
    """Killed while new replicas start: the old release serves; `resume` goes on with the very same replicas."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    project.close("serve-production")
    project.commit("two")
    command = house.start(project, "run")
    project.until_noted("began", "serve-production", 4)
    command.kill()
    assert {project.serves()["model"] for _ in range(8)} == {"one"}
    again = house.start(project, "resume")
    project.open("serve-production")
    again.ends()
    assert {project.serves()["model"] for _ in range(8)} == {"two"}
    assert len(project.ledger("began", "serve-production")) == 4
    assert house.statuses() == ["retired", "serving"]
    passed(house, 2)


def test_after_the_switch_the_new_release_serves(house: House) -> None:
    """Killed while the old release finishes a request: that is answered, `resume` passes, and `rollback` works."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    project.close("slow")
    slow = subprocess.Popen(["curl", "-sf", f"http://127.0.0.1:{project.production}/slow"], stdout=subprocess.PIPE)
    project.until_noted("asked", "slow")
    project.commit("two")
    command = house.start(project, "run")
    house.until_event("release", "promote", "2")
    until(lambda: house.rows("SELECT 1 FROM releases WHERE phase LIKE 'draining%'"), "the old release drains")
    command.kill()
    assert project.serves()["model"] == "two"
    again = house.start(project, "resume")
    project.open("slow")
    assert json.loads(slow.communicate()[0])["model"] == "one"
    again.ends()
    assert house.statuses() == ["retired", "serving"]
    passed(house, 2)
    house.do(project, "rollback", "production")
    assert project.serves()["model"] == "one"


def test_rollback_right_after_a_kill(house: House) -> None:
    """A `rollback` that follows a kill after the switch, with no `resume` between, finds the release to go back to."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    project.commit("two")
    command = house.start(project, "run")
    house.until_event("release", "promote", "2")
    command.kill()
    house.do(project, "rollback", "production")
    assert project.serves()["model"] == "one"
    house.do(project, "resume", code=3)
    assert house.show(2)["status"] == "superseded", "a person's rollback is newer than the run"
    assert project.serves()["model"] == "one"


def test_the_other_command_finishes_its_own(house: House) -> None:
    """Kill -9 of the command that waits: the other one finishes, and `resume` finishes the dead one's run."""
    one, other = house.project("one"), house.project("other")
    for project in (one, other):
        project.close("make")
    holder = house.start(one, "run")
    one.until_noted("began", "make")
    follower = house.start(other, "run")
    other.until_noted("began", "make")
    follower.kill()
    one.open("make")
    holder.ends()
    assert house.step(2, "make")
    assert one.serves()["model"] == "one"
    other.open("make")
    other.until_noted("ended", "make")
    house.do(None, "resume")
    passed(house, 2)
    assert other.serves()["model"] == "one"


def test_the_waiting_command_takes_over(house: House) -> None:
    """Kill -9 of the command that coordinates: the waiting one finishes its own, `resume` finishes the dead one's."""
    one, other = house.project("one"), house.project("other")
    for project in (one, other):
        project.close("make")
    holder = house.start(one, "run")
    one.until_noted("began", "make")
    follower = house.start(other, "run")
    other.until_noted("began", "make")
    holder.kill()
    other.open("make")
    follower.ends()
    assert other.serves()["model"] == "one"
    one.open("make")
    house.do(None, "resume")
    passed(house, 1)
    passed(house, 2)
    assert one.serves()["model"] == "one"


def test_a_dead_run_is_watched_and_starts_nothing(house: House) -> None:
    """Where nobody waits for a run its live step is recorded by whoever coordinates, and no new step starts."""
    one, other = house.project("one"), house.project("other")
    one.close("make")
    command = house.start(one, "run")
    one.until_noted("began", "make")
    command.kill()
    other.close("make")
    watching = house.start(other, "run")
    other.until_noted("began", "make")
    one.open("make")
    house.until_event("step", "pass", "1/make")
    other.open("make")
    watching.ends()
    assert house.rows("SELECT name FROM steps WHERE run = 1 AND status = 'running'") == []
    assert one.ledger("began", "ask") == []
    house.do(None, "resume")
    passed(house, 1)


def test_resume_beside_a_living_command(house: House) -> None:
    """A `resume` killed while the run's own command lives takes nothing from that: the command finishes."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    second = house.start(project, "resume")
    until(lambda: house.rows("SELECT 1 FROM requests WHERE kind = 'resume'"), "resume has asked")
    until(lambda: "make" in second.said, "resume shows the run")
    second.kill()
    project.open("make")
    command.ends()
    passed(house)


@pytest.mark.parametrize("victim", ["shim", "whole"])
def test_a_killed_shim_is_seen(house: House, victim: str) -> None:
    """A step whose shim is killed is errored as lost, soon, with nothing of it left; the same run again passes."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    shim = house.until_recorded(1, "make")
    for pid in house.step(1, "make") if victim == "whole" else {shim}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    command.ends(3)
    assert house.attempts(1, "make") == ["lost"]
    assert house.processes() == {}
    assert "vanished" in house.show()["steps"]["make"]["reason"]
    project.open("make")
    house.run(project)


def test_half_an_exit_record_is_no_exit(house: House) -> None:
    """A record that ends in the midst of its last line means lost, never a wrong exit code."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    shim = house.until_recorded(1, "make")
    command.send(signal.SIGSTOP)
    project.open("make")
    until(lambda: not lives(shim), "the step has ended")
    command.kill()
    ((name,),) = house.rows("SELECT json_extract(detail, '$.record') FROM attempts WHERE step = 'make'")
    record = Path(name)
    whole = record.read_bytes()
    assert whole.endswith(b"end 1.make.1 0 .\n")
    record.write_bytes(whole[:-3])
    house.do(project, "resume", code=3)
    assert house.attempts(1, "make") == ["lost"]
    house.run(project)


def test_a_run_whose_folder_vanished_is_errored(house: House) -> None:
    """With the record gone nobody can tell how a step ended: errored in one sentence, and the next run passes."""
    project = house.project(environments="")
    project.pipeline(PIPELINE)
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    house.until_recorded(1, "make")
    command.kill()
    for path in sorted((house.home / "runs" / "1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    project.open("make")
    until(lambda: house.processes() == {}, "the step has ended")
    house.do(project, "resume", code=3)
    assert house.attempts(1, "make") == ["lost"]
    house.run(project)


def test_a_release_that_another_run_has_overtaken(house: House) -> None:
    """Killed while its replicas start, another run of the commit released meanwhile: no replica stays behind."""
    project = house.project(environments=PRODUCTION)
    project.close("serve-production")
    command = house.start(project, "run")
    project.until_noted("began", "serve-production", 2)
    command.kill()
    project.open("serve-production")
    house.run(project)
    house.do(project, "resume")
    assert house.statuses() == ["rejected", "serving"]
    assert len(house.servers()) == 2
    assert house.show(1)["status"] == house.show(2)["status"] == "passed"
