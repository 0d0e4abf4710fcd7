"""Releases are switched under load from clients without retries, and no request fails (FAULTS 19 in small)."""

import sys

from faults.house import PRODUCTION, House
from faults.load import Load

SWITCHES = 10


def test_ten_switches_and_a_rollback_lose_nothing(house: House) -> None:
    """10 commits and a rollback one after another: every request of every client is answered well."""
    project = house.project(environments=PRODUCTION)
    versions = [house.run(project)["version"]]
    with Load(project.production) as load:
        for number in range(SWITCHES):
            project.commit(f"model {number}")
            versions.append(house.run(project)["version"])
        house.do(project, "rollback", "production")
    sys.stdout.write(
        f"\n{load.answers.total()} requests over {SWITCHES} switches and a rollback, {len(load.failed)} failed\n"
    )
    assert load.failed == []
    assert set(load.answers) == set(versions)
    assert project.serves()["release"] == versions[-2]


def test_a_killed_switch_loses_nothing(house: House) -> None:
    """A command killed right after each of three switches, and `resume`: no request fails."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    with Load(project.production) as load:
        for number in range(2, 5):
            project.commit(f"model {number}")
            command = house.start(project, "run")
            house.until_event("release", "promote", str(number))
            command.kill()
            house.do(project, "resume")
    assert load.failed == []
    assert project.serves()["model"] == "model 4"
