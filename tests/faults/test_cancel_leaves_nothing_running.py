"""`penstock cancel` from another terminal ends a run for good and everything that it started (FAULTS 16)."""

import signal

from faults.house import PRODUCTION, House


def test_a_run_is_canceled(house: House) -> None:
    """The canceled run's own command leaves with 3, its status is canceled, nothing of it is left, and it stays so."""
    project = house.project()
    project.close("ask")
    command = house.start(project, "run")
    project.until_noted("began", "ask")
    assert "canceled" in house.do(None, "cancel", "1")
    command.ends(3)
    shown = house.show()
    assert shown["status"] == shown["steps"]["ask"]["status"] == "canceled"
    assert house.processes() == {}
    house.do(project, "resume", "1", code=2)
    house.do(project, "cancel", "1", code=2)
    project.open("ask")
    house.do(project, "run")


def test_a_waiting_run_is_canceled(house: House) -> None:
    """Canceling the run of a command that does not coordinate leaves the other run alone."""
    one, other = house.project("one", ""), house.project("other", "")
    for project in (one, other):
        project.close("make")
    holder = house.start(one, "run")
    one.until_noted("began", "make")
    follower = house.start(other, "run")
    other.until_noted("began", "make")
    house.do(None, "cancel", "2")
    follower.ends(3)
    assert house.step(1, "make")
    assert not house.step(2, "make")
    one.open("make")
    holder.ends()


def test_a_step_that_hides_is_gone(house: House) -> None:
    """A step that ignores TERM, and what it left behind in a session and with a parent of its own, are gone."""
    project = house.project(environments="")
    project.stubborn()
    command = house.start(project, "run")
    for name in ("stubborn", "far"):
        project.until_noted("began", name)
    house.do(None, "cancel", "1")
    command.ends(3)
    assert house.processes() == {}


def test_a_rollout_is_canceled(house: House) -> None:
    """Canceled while new replicas start: these are gone, the old release serves, the next release comes through."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    before = set(house.processes())
    project.commit("two")
    project.close("serve-production")
    command = house.start(project, "run")
    project.until_noted("began", "serve-production", 4)
    house.do(None, "cancel", "2")
    command.ends(3)
    assert set(house.processes()) == before
    assert project.serves()["model"] == "one"
    assert house.statuses() == ["serving", "rejected"]
    project.open("serve-production")
    project.commit("three")
    house.run(project)
    assert project.serves()["model"] == "three"


def test_a_dead_rollout_is_canceled(house: House) -> None:
    """A run whose command was killed while new replicas started is canceled: no replica of it is left."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    before = set(house.processes())
    project.commit("two")
    project.close("serve-production")
    command = house.start(project, "run")
    project.until_noted("began", "serve-production", 4)
    command.kill()
    house.do(None, "cancel", "2")
    assert set(house.processes()) == before
    assert house.statuses() == ["serving", "rejected"]
    assert project.serves()["model"] == "one"


def test_a_dead_step_is_canceled(house: House) -> None:
    """A run whose command was killed in the midst of a step is canceled, and the step's process is gone."""
    project = house.project()
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    command.kill()
    assert house.step(1, "make")
    house.do(None, "cancel", "1")
    assert house.processes() == {}
    assert house.attempts(1, "make") == ["canceled"]


def test_an_interrupted_rollout_is_canceled(house: House) -> None:
    """An interrupted run is canceled: its release is rejected, and none is left that seems to start."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    project.commit("two")
    project.close("serve-production")
    command = house.start(project, "run")
    project.until_noted("began", "serve-production", 4)
    command.send(signal.SIGINT)
    command.ends(130)
    house.do(None, "cancel", "2")
    assert house.show(2)["status"] == "canceled"
    assert house.statuses() == ["serving", "rejected"]
