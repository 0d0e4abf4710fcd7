"""A probe whose command, candidate or stable release dies: it is made again, or speaks against the candidate alone."""

import json
import os
import signal

import pytest

from faults.house import House, Project, until

PROBED = """\
environments:
  production: {{port: {production}, replicas: 1, probe: src/asked.jsonl}}
"""
PROGRAM = "penstock.engine.comparing"


def project_of(house: House, *paths: str) -> Project:
    """A project whose releases are asked these paths before they get any traffic; nothing was run."""
    project = house.project(environments=PROBED)
    text = (project.repo.folder / "penstock.yaml").read_text()
    project.repo.put("penstock.yaml", text.replace("code: [serve.py]", "code: [serve.py, src/]"))
    project.repo.put("src/asked.jsonl", "".join(json.dumps({"path": path}) + "\n" for path in paths))
    project.commit("one")
    return project


def probes(house: House) -> list[int]:
    """The processes of probes that live, without their shims."""
    return [pid for pid, line in house.processes().items() if f"-P -m {PROGRAM} " in line and "/sh " not in line]


@pytest.mark.parametrize("point", [
    "release.probe:before_commit", "release.probe:after_commit", "probe.start:after_effect", "probe.end:after_effect",
])  # fmt: skip
def test_a_death_at_every_point(house: House, point: str) -> None:
    """Wherever its command is killed with -9, `resume` has the release probed, and it serves."""
    project = project_of(house, "/", "/again")
    command = house.start(project, "run", crash=point)
    assert command.wait() == -signal.SIGKILL
    house.do(project, "resume")
    assert project.serves()["model"] == "one"
    assert house.statuses() == ["serving"]
    ((rollout,),) = house.rows("SELECT rollout FROM releases")
    assert json.loads(rollout)["probe"]["verdict"] == "pass"


def test_never_two_at_once(house: House) -> None:
    """The probe that outlived its command is ended before `resume` makes another."""
    project = project_of(house, "/slow")
    project.close("slow")
    command = house.start(project, "run")
    project.until_noted("asked", "slow")
    (before,) = probes(house)
    command.kill()
    assert probes(house) == [before]
    other = house.start(project, "resume")
    project.until_noted("asked", "slow", 2)
    until(lambda: probes(house) and before not in probes(house), "the first probe ends")
    project.open("slow")
    other.ends()
    assert project.serves()["model"] == "one"


def test_stop_leaves_no_probe(house: House) -> None:
    """After kill -9 of the command `stop` ends the release, and with it what asks it."""
    project = project_of(house, "/slow")
    project.close("slow")
    command = house.start(project, "run")
    project.until_noted("asked", "slow")
    command.kill()
    house.do(project, "stop")
    until(lambda: house.processes() == {}, "the probe ends")


@pytest.mark.parametrize(
    ("victim", "code", "statuses"), [("candidate", 1, ["serving", "rejected"]), ("stable", 0, ["retired", "serving"])]
)
def test_who_dies_while_it_is_asked(house: House, victim: str, code: int, statuses: list[str]) -> None:
    """A candidate that is killed is rejected; a stable release that is killed has nothing to compare with, no more."""
    project = project_of(house, "/slow", "/")
    house.run(project)
    stable = house.servers()
    before = len(project.ledger("asked", "slow"))
    project.close("slow")
    project.commit("two")
    command = house.start(project, "run")
    project.until_noted("asked", "slow", before + 1)
    for pid in stable if victim == "stable" else house.servers() - stable:
        os.kill(pid, signal.SIGKILL)
    project.open("slow")
    command.ends(code)
    assert house.statuses() == statuses
    assert project.serves()["model"] == ("two" if victim == "stable" else "one")
