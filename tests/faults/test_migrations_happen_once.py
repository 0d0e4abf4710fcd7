"""A migration is killed with, outlives, or is waited for by its command, and never runs twice at once (FAULTS 24)."""

import os
import signal
from contextlib import suppress

import pytest

from faults.house import PRODUCTION, House, Project, until


def project_of(house: House) -> Project:
    """A project whose package holds the migration's script; nothing was run."""
    project = house.project(environments=PRODUCTION)
    text = (project.repo.folder / "penstock.yaml").read_text()
    text = text.replace("code: [serve.py]", "code: [serve.py, step.sh]")
    text = text.replace("replicas: 2}", "replicas: 2, migrate: {run: sh step.sh migrate, timeout: 25s}}")
    project.repo.put("penstock.yaml", text)
    project.commit("one")
    return project


def statuses(house: House) -> list[str]:
    """The status of every migration, oldest first."""
    return [status for (status,) in house.rows("SELECT status FROM migrations ORDER BY id")]


def test_a_killed_command_leaves_its_migration(house: House) -> None:
    """After kill -9 of the command `resume` waits for the very process; it ran once, and the release serves."""
    project = project_of(house)
    project.close("migrate")
    command = house.start(project, "run")
    project.until_noted("began", "migrate")
    command.kill()
    other = house.start(project, "resume")
    project.open("migrate")
    other.ends()
    assert project.serves()["model"] == "one"
    assert len(project.ledger("began", "migrate")) == len(project.ledger("ended", "migrate")) == 1
    assert statuses(house) == ["passed"]


def test_a_killed_migration_is_run_again(house: House) -> None:
    """Where command, shim and migration were killed, `resume` runs it again, and only then starts replicas."""
    project = project_of(house)
    project.close("migrate")
    command = house.start(project, "run")
    project.until_noted("began", "migrate")
    until(lambda: house.rows("SELECT 1 FROM migrations WHERE handle IS NOT NULL"), "its start is recorded")
    command.kill()
    for pid, line in house.processes().items():
        if "migrate" in line:
            with suppress(ProcessLookupError):  # it may go with its shim
                os.kill(pid, signal.SIGKILL)
    project.open("migrate")
    house.do(project, "resume")
    assert project.serves()["model"] == "one"
    assert len(project.ledger("ended", "migrate")) == 1
    assert statuses(house) == ["lost", "passed"]


def test_a_deploy_that_was_killed_while_it_migrated(house: House) -> None:
    """Its release is rejected, its migration goes on to its end; the next deploy finds it passed."""
    project = project_of(house)
    version = house.run(project, "--no-deploy")["version"]
    project.close("migrate")
    command = house.start(project, "deploy", version, "production")
    project.until_noted("began", "migrate")
    command.kill()
    again = house.start(project, "deploy", version, "production")
    until(lambda: house.statuses()[:1] == ["rejected"], "the first release is rejected")
    project.open("migrate")
    again.ends()
    assert house.statuses() == ["rejected", "serving"]
    assert len(project.ledger("began", "migrate")) == 1


def test_stop_ends_a_migration(house: House) -> None:
    """After kill -9 of the command `stop` leaves nothing of the migration running."""
    project = project_of(house)
    project.close("migrate")
    command = house.start(project, "run")
    project.until_noted("began", "migrate")
    command.kill()
    house.do(project, "stop")
    assert house.processes() == {}
    assert statuses(house) == ["lost"]
    assert project.ledger("ended", "migrate") == []


STARTS = ("before_commit", "after_commit", "after_effect", "after_recorded")
POINTS = (*(f"start:{at}" for at in STARTS), "end:after_effect", "pass:before_commit", "pass:after_commit")


@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_every_point(house: House, point: str) -> None:
    """Wherever its command is killed with -9, `resume` releases, and the migration ran once in all."""
    project = project_of(house)
    command = house.start(project, "run", crash=f"migration.{point}")
    assert command.wait() == -signal.SIGKILL
    house.do(project, "resume")
    assert project.serves()["model"] == "one"
    assert len(project.ledger("began", "migrate")) == len(project.ledger("ended", "migrate")) == 1
    assert statuses(house) == (["lost", "passed"] if point == "start:after_commit" else ["passed"])
