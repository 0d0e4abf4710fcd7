"""Releases that are no good never keep traffic, whatever dies meanwhile (FAULTS 20, 21, 22 and 28 in a rollout)."""

import json
import os
import signal
import sys
import time

import psutil
import pytest

from faults.house import House, Project, until
from faults.load import Load

CANARY = """\
environments:
  production:
    port: {production}
    replicas: 2
    resources: {{memory: 200MiB}}
    rollout: {{canary: [20%, 50%], interval: 1s, deadline: DEADLINE, error_rate_at_most: 5%}}
"""


def project_of(house: House, deadline: str = "60s") -> Project:
    """A project whose first release serves, and whose next one goes by widths."""
    project = house.project(environments=CANARY.replace("DEADLINE", deadline))
    house.run(project)
    return project


def canary(house: House) -> int:
    """Wait until a release is tried in traffic and the router follows; its number."""
    found = until(lambda: house.rows("SELECT id FROM releases WHERE status = 'canary'"), "a canary")
    until(lambda: weights(house) == [2000, 8000], "the first width")
    return int(found[0][0])


def weights(house: House) -> list[int]:
    """The weights that the router's file of production names, in rising order."""
    files = list((house.home / "router").glob("routes-*production.json"))
    route = json.loads(files[0].read_text())["resources"][0]["virtual_hosts"][0]["routes"][-1]["route"]
    shares = route.get("weighted_clusters", {}).get("clusters", ())
    return sorted(int(share["weight"]) for share in shares)


@pytest.mark.parametrize("model", ["broken", "crashing", "hungry"])
def test_a_release_that_fails_its_users_goes_back(house: House, model: str) -> None:
    """Answers of 500, a server that ends at each request, or one without memory: only the canary's requests fail."""
    project = project_of(house)
    stable = project.serves()["release"]
    with Load(project.production) as load:
        project.commit(model)
        found = house.run(project, code=1)
        failed = len(load.failed)
        enough = load.answers.total() + 200
        until(lambda: load.answers.total() > enough, "200 more answers")
        assert len(load.failed) == failed
    assert found["status"] == "failed"
    assert [(r["version"], r["status"]) for r in found["releases"]] == [(found["version"], "rolled_back")]
    assert 0 < failed < load.answers.total() / 2
    assert project.serves()["release"] == stable


def test_a_release_that_is_never_ready_gets_nothing(house: House) -> None:
    """It does not become healthy: nobody was ever sent to it."""
    project = house.project(environments=CANARY.replace("DEADLINE", "60s"))
    text = (project.repo.folder / "penstock.yaml").read_text()
    project.repo.put("penstock.yaml", text.replace("health: /health", "health: /health, start_timeout: 2s"))
    project.commit("two")
    house.run(project)
    stable = project.serves()["release"]
    project.close("serve-production")
    with Load(project.production) as load:
        project.commit("three")
        house.run(project, code=1)
    assert load.failed == []
    assert set(load.answers) == {stable}


def test_nobody_calls(house: House) -> None:
    """Without a request it holds, and at the deadline it is rolled back, undecided: exit code 3, never success."""
    project = project_of(house, deadline="3s")
    project.commit("two")
    found = house.run(project, code=3)
    assert found["status"] == "errored"
    assert house.rows("SELECT status FROM releases ORDER BY id") == [("serving",), ("rolled_back",)]
    assert "the canary got no request, and no data is no success" in found["releases"][0]["reason"]


def test_the_stable_release_dies_meanwhile(house: House) -> None:
    """Its killed replicas come back; the canary never gets more than its width for that."""
    project = project_of(house)
    project.commit("two")
    command = house.start(project, "run")
    number = canary(house)
    for (handle,) in house.rows("SELECT handle FROM replicas WHERE release = ? AND status = 'running'", number - 1):
        os.kill(json.loads(handle)["pid"], signal.SIGKILL)
    until(lambda: project_answers(project), "the stable release answers again")
    assert weights(house) == [2000, 8000]
    with Load(project.production):
        command.ends()
    assert house.rows("SELECT status FROM releases ORDER BY id") == [("retired",), ("serving",)]


def project_answers(project: Project) -> bool:
    try:
        return bool(project.serves()["model"] == "one")
    except OSError:
        return False


@pytest.mark.parametrize("whole", [False, True])
def test_the_router_dies_meanwhile(house: House, whole: bool) -> None:
    """It is back with the canary's width, also where its shim died too; its counts are a gap, and judging goes on."""
    project = project_of(house)
    project.commit("two")
    command = house.start(project, "run")
    number = canary(house)
    before = weights(house)
    with Load(project.production):
        until(lambda: "requests" in str(house.rows("SELECT phase FROM releases WHERE id = ?", number)), "a look")
    shim = psutil.Process(json.loads((house.home / "router" / "router.json").read_text())["handle"]["pid"])
    for victim in [*([shim] if whole else []), *shim.children(recursive=True)]:
        victim.kill()
    begun = time.monotonic()
    until(lambda: project_serves(project), "the router is back")
    sys.stdout.write(f"\nthe router was back after {time.monotonic() - begun:.2f} s\n")
    assert weights(house) == before == [2000, 8000]
    with Load(project.production):
        command.ends()
    assert project.serves()["model"] == "two"


def project_serves(project: Project) -> bool:
    try:
        return bool(project.serves())
    except OSError:
        return False


@pytest.mark.parametrize("word", ["promote", "abort"])
def test_a_command_that_judges_is_killed(house: House, word: str) -> None:
    """The width holds with nobody there; the next command of any kind goes on judging, and a person may end it."""
    project = project_of(house)
    project.commit("two")
    command = house.start(project, "run")
    canary(house)
    command.kill()
    assert weights(house) == [2000, 8000]
    assert {project.serves()["model"] for _ in range(200)} == {"one", "two"}
    house.do(project, word, "production", "--reason", "the test says so")
    ended = {"promote": [("retired",), ("serving",)], "abort": [("serving",), ("rolled_back",)]}[word]
    assert house.rows("SELECT status FROM releases ORDER BY id") == ended
    assert weights(house) == [10_000]
    house.start(project, "resume").wait()
    assert house.rows("SELECT status FROM releases ORDER BY id") == ended


def test_a_healthy_release_is_promoted_after_a_kill(house: House) -> None:
    """Its command is killed at a width under load; `resume` judges to the end, and no request fails."""
    project = project_of(house)
    with Load(project.production) as load:
        project.commit("two")
        command = house.start(project, "run")
        canary(house)
        command.kill()
        house.do(project, "resume")
    assert load.failed == []
    assert house.rows("SELECT status FROM releases ORDER BY id") == [("retired",), ("serving",)]
    assert house.rows("SELECT status FROM runs ORDER BY id") == [("passed",), ("passed",)]
