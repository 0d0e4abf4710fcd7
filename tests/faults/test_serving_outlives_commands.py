"""What was released serves on without a command, and comes back from kill -9 of its parts (FAULTS 28)."""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from faults.house import PRODUCTION, House, Project, answers, lives, until


def envoys(house: House) -> set[int]:
    """The router's own process, without its shim."""
    return {pid for pid, line in house.processes().items() if "envoy.json" in line and "_penstock" not in line}


def shims(house: House) -> set[int]:
    return {pid for pid, line in house.processes().items() if "_penstock_sweep" in line}


def killed(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # the death of the first of a namespace is that of all in it
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(lives, pids)), "the killed are gone")


def both_replicas(project: Project) -> set[str]:
    """The two servers that answer by turns, once that is so."""

    def two() -> set[str]:
        found = [answers(project.production) for _ in range(12)]
        names = {answer["server"] for answer in found if answer}
        return names if len(names) == 2 and None not in found else set()

    return until(two, "two replicas answer")


def test_replicas_and_router_answer_after_the_command(house: House) -> None:
    """After `run` has ended nothing of it is left but what serves, and that answers with its release's name."""
    project = house.project()
    version = house.run(project)["version"]
    assert not any("penstock run" in line for line in house.processes().values())
    assert project.serves()["release"] == project.serves("staging")["release"] == version
    assert both_replicas(project) == {note.server for note in project.ledger("began", "serve-production")}
    assert "2 of 2" in house.do(None, "status")


def test_the_router_comes_back(house: House) -> None:
    """Kill -9 of the router, with no command there: it is back with all its routes."""
    project = house.project()
    house.run(project)
    begun = time.monotonic()
    killed(envoys(house))
    until(lambda: answers(project.production) and answers(project.staging), "both environments answer")
    sys.stdout.write(f"\nrouter back after {time.monotonic() - begun:.2f} s\n")
    assert project.serves()["model"] == project.serves("staging")["model"] == "one"
    both_replicas(project)


def test_the_router_comes_back_again_and_again(house: House) -> None:
    """Three kills of the router in a row, then a new release: the switch works as ever."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    for _ in range(3):
        killed(until(lambda: envoys(house), "a router"))
    project.commit("two")
    house.run(project)
    assert project.serves()["model"] == "two"


def test_a_server_comes_back(house: House) -> None:
    """Kill -9 of a replica's server, with no command there: its shim starts it again and it gets requests again."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    before = both_replicas(project)
    killed({min(house.servers())})
    project.until_noted("began", "serve-production", 3)
    until(lambda: len(before & both_replicas(project)) == 1, "one of the two is new")
    assert len(project.ledger("began", "serve-production")) == 3


def test_the_next_command_brings_back_what_serves(house: House) -> None:
    """Kill -9 of everything that serves, shims included: the next command that acts brings it back as it was.

    `doctor` says what is missing before; and what dies while that command works comes back too.
    """
    project, other = house.project(environments=PRODUCTION), house.project("other", "")
    version = house.run(project)["version"]
    killed(set(house.processes()))
    assert answers(project.production) is None
    assert "router" in house.do(None, "doctor", code=3)
    other.close("make")
    command = house.start(other, "run")
    until(lambda: answers(project.production), "production answers")
    both_replicas(project)
    assert project.serves()["release"] == version
    query = "SELECT json_extract(handle, '$.pid') FROM replicas WHERE status = 'running'"
    keepers = {pid for (pid,) in house.rows(query)}
    keepers.add(json.loads((house.home / "router" / "router.json").read_text())["handle"]["pid"])
    killed({*keepers, *house.servers(), *envoys(house)})
    until(lambda: answers(project.production), "production answers again")
    both_replicas(project)
    other.open("make")
    command.ends()
    both_replicas(project)


def test_one_replica_without_its_shim_is_replaced(house: House) -> None:
    """Kill -9 of one replica's shim and server: the other answers, and a run of the same commit makes them two."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    ((shim,), _) = house.rows("SELECT json_extract(handle, '$.pid') FROM replicas ORDER BY id")
    killed({shim, *(pid for pid in house.servers() if parent(parent(pid)) == shim)})
    until(lambda: answers(project.production), "the other replica answers")
    house.run(project)
    both_replicas(project)
    assert len(house.serving()) == 1


def test_an_orphan_server_gives_its_port_back(house: House) -> None:
    """Kill -9 of the shims alone: the servers they leave are ended before new ones take their ports."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    before = house.servers()
    killed(shims(house))
    project.commit("two")
    house.run(project)
    assert {project.serves()["model"] for _ in range(8)} == {"two"}
    house.do(project, "rollback", "production")
    assert {project.serves()["model"] for _ in range(8)} == {"one"}
    assert not before & house.servers()


def test_stop_starts_nothing(house: House) -> None:
    """`stop` after kill -9 of everything that served leaves nothing running, and after a second `stop` neither."""
    project = house.project()
    house.run(project)
    killed(set(house.processes()))
    house.do(None, "stop")
    assert house.processes() == {}
    assert "nothing was serving" in house.do(None, "stop")


def test_a_killed_stop_is_finished_by_the_next(house: House) -> None:
    """`stop` killed in its midst: the next one ends what is left."""
    project = house.project()
    house.run(project)
    command = house.start(None, "stop")
    house.until_event("release", "stop")
    command.kill()
    house.do(None, "stop")
    assert house.processes() == {}
    house.run(project)
    assert project.serves()["model"] == "one"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1])
