"""Two commands on one home both pass, with one coordinator at a time and nothing done twice (FAULTS 11)."""

import json
from contextlib import suppress
from pathlib import Path

from faults.house import PIPELINE, PRODUCTION, House, until


def holders(house: House) -> list[int]:
    """Who holds the coordinator's lock, by the kernel's own list."""
    inode = (house.home / "coordinator.lock").stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
    return [int(words[4]) for words in lines if words[1] == "FLOCK" and words[5].endswith(f":{inode}")]


def test_two_runs_of_one_commit_pass(house: House) -> None:
    """Both runs of one commit pass under one coordinator, with one execution of each step and one release."""
    project = house.project()
    project.close("make")
    first = house.start(project, "run", "--json")
    project.until_noted("began", "make")
    second = house.start(project, "run", "--json")
    house.until_event("run", "start", "2")
    assert holders(house) == [first.pid]
    project.open("make")
    ends = [json.loads(command.ends()) for command in (first, second)]
    assert [end["status"] for end in ends] == ["passed", "passed"]
    assert all(step["attempts"] <= 1 for end in ends for step in end["steps"])
    assert len(house.serving("staging")) == len(house.serving()) == 1
    assert len(project.ledger("began", "make")) == 1


def test_two_runs_of_two_commits_pass(house: House) -> None:
    """Runs of two commits pass in their order, and production has the newer one."""
    project = house.project()
    for gate in ("make-1", "make-2"):
        project.close(gate)
    first = house.start(project, "run")
    project.until_noted("began", "make")
    project.commit("two")
    second = house.start(project, "run")
    project.until_noted("began", "make", 2)
    assert holders(house) == [first.pid]
    project.open("make-1")
    first.ends()
    assert project.serves()["model"] == "one"
    project.open("make-2")
    second.ends()
    assert project.serves()["model"] == "two"
    assert house.rows("SELECT DISTINCT number FROM attempts") == [(1,)]


def test_two_projects_pass(house: House) -> None:
    """Two projects run on one home at once and each gets its own release."""
    one, other = house.project("one"), house.project("other")
    for project in (one, other):
        project.close("make")
    commands = [house.start(project, "run") for project in (one, other)]
    for project in (one, other):
        project.until_noted("began", "make")
    assert len(holders(house)) == 1
    for project in (one, other):
        project.open("make")
    for command in commands:
        command.ends()
    assert one.serves()["model"] == other.serves()["model"] == "one"
    assert house.rows("SELECT DISTINCT number FROM attempts") == [(1,)]


def test_commands_that_make_the_home_together_pass(house: House) -> None:
    """Five commands that find no home make it together: each passes."""
    projects = [house.project(f"p{number}", PRODUCTION) for number in range(5)]
    commands = [house.start(project, "run", "--no-deploy") for project in projects]
    for command in commands:
        command.ends()
    assert len(house.rows("SELECT id FROM runs WHERE status = 'passed'")) == 5


def test_the_lock_is_not_inherited(house: House) -> None:
    """Neither a step nor a replica nor the router holds the lock, the database or the FIFO of the coordinator."""
    project = house.project()
    house.run(project)
    project.commit("two")
    project.close("ask")
    command = house.start(project, "run")
    project.until_noted("began", "ask", 2)
    private = {str(house.home / name) for name in ("coordinator.lock", "penstock.db", "penstock.db-wal", "poke")}
    assert private & open_files(command.pid)
    others = set(house.processes()) - {command.pid}
    assert len(others) >= 9, "two shims and servers, the router, the step and the private server"
    # A program that is just being started holds them until its exec, and no longer.
    until(lambda: not any(private & open_files(pid) for pid in others), "nobody else holds what is the coordinator's")
    project.open("ask")
    command.ends()


def open_files(pid: int) -> set[str]:
    """The paths of a process's descriptors."""
    found = set()
    with suppress(FileNotFoundError):  # it has ended
        for name in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(name.readlink()))
    return found


def test_commands_that_only_look_do_not_wait(house: House) -> None:
    """While a run goes on, the verbs that read answer at once, and another project's deploy is not held up."""
    project = house.project()
    project.pipeline(PIPELINE)
    project.commit("no environments")
    project.close("make")
    command = house.start(project, "run")
    project.until_noted("began", "make")
    for verb in (("runs",), ("show", "1"), ("status",), ("logs", "1"), ("explain", "1", "make"), ("plan",)):
        house.do(project, *verb)
    project.open("make")
    command.ends()
    until(lambda: holders(house) == [], "the lock is free")
