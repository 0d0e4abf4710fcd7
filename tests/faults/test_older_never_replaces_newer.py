"""An environment goes forward by the order in which people asked, whoever finishes first (FAULTS 23)."""

from faults.house import PRODUCTION, House, until


def test_an_older_run_that_finishes_late_is_refused(house: House) -> None:
    """The older commit's run ends as superseded, with exit 3 and a reason; the newer one serves, nothing else runs."""
    project = house.project(environments=PRODUCTION)
    for gate in ("ask-1", "ask-2"):
        project.close(gate)
    older = house.start(project, "run")
    project.until_noted("began", "ask")
    project.commit("two")
    newer = house.start(project, "run")
    project.until_noted("began", "ask", 2)
    project.open("ask-2")
    newer.ends()
    serving = set(house.processes()) - {older.pid}
    project.open("ask-1")
    older.ends(3)
    assert house.show(1)["status"] == "superseded"
    assert "newer release" in house.show(1)["releases"][0]["reason"]
    assert project.serves()["model"] == "two"
    assert len(set(house.processes()) - serving) == 0


def test_two_deploys_race(house: House) -> None:
    """Of two deploys at once the one that was asked for last has the traffic in the end."""
    project = house.project(environments=PRODUCTION)
    versions = []
    for model in ("one", "two", "three"):
        project.commit(model)
        versions.append(house.run(project)["version"])
    commands = [house.start(project, "deploy", version, "production") for version in versions[:2]]
    for command in commands:
        command.wait()
    last = house.rows("SELECT json_extract(payload, '$.run') FROM requests WHERE kind = 'deploy' ORDER BY id")[-1][0]
    assert house.serving() == [versions[last - 1]]
    until(lambda: "draining" not in house.statuses(), "the drains are over")


def test_a_deploy_and_a_run_race(house: House) -> None:
    """A deploy asked for while a run is on its way is newer than the run, which then does not replace it."""
    project = house.project(environments=PRODUCTION)
    version = house.run(project)["version"]
    project.commit("two")
    project.close("ask")
    command = house.start(project, "run")
    project.until_noted("began", "ask", 2)
    project.commit("three")
    house.do(project, "deploy", version, "production")
    assert project.serves()["model"] == "one"
    project.open("ask")
    command.wait()
    assert project.serves()["model"] == "one"


def test_a_deploy_that_was_killed(house: House) -> None:
    """A deploy killed before its switch changes nothing; its replicas are gone at the next command."""
    project = house.project(environments=PRODUCTION)
    versions = []
    for model in ("one", "two", "three"):
        project.commit(model)
        versions.append(house.run(project)["version"])
    project.close("serve-production")
    began = len(project.ledger("began", "serve-production"))
    before = set(house.processes())
    command = house.start(project, "deploy", versions[0], "production")
    project.until_noted("began", "serve-production", began + 2)
    command.kill()
    project.open("serve-production")
    house.do(project, "deploy", versions[1], "production")
    assert project.serves()["model"] == "two"
    assert house.statuses()[3:] == ["rejected", "serving"]
    assert not before - set(house.processes()) - before
