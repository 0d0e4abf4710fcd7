"""`penstock serve` as a person has it: a real process, real repositories, real kills."""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from acceptance.tiny import Command, end, free_ports
from sources.repositories import Repo, isolated, new_repo

PATIENCE = 60.0
T = TypeVar("T")

PIPELINE = """\
name: tiny
variables: {{ROOM: "{room}"}}
{on}
steps:
  work:
    run: |
      echo "began $PENSTOCK_RUN $(git -C "$ROOM/../project" log -1 --format=%s $PENSTOCK_COMMIT)" >>"$ROOM/ledger"
      while [ -e "$ROOM/closed" ]; do sleep 0.02; done
      echo "ended $PENSTOCK_RUN" >>"$ROOM/ledger"
"""


def until(condition: Callable[[], T], what: str) -> T:
    """Wait until a condition holds and return its value; fails the test when it never does."""
    deadline = time.monotonic() + PATIENCE
    while not (holds := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE:g} s"
        time.sleep(0.01)
    return holds


@dataclass
class Serve:
    """One serve process; what it says goes to a file."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def hears(self, words: str) -> None:
        """Wait until it has said this."""
        until(lambda: words in self.said or self.process.poll() is not None, words)
        assert words in self.said, self.said

    @property
    def port(self) -> int:
        self.hears("http://127.0.0.1:")
        return int(self.said.split("http://127.0.0.1:")[1].split()[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def ends(self, number: signal.Signals = signal.SIGTERM, code: int = 0) -> str:
        """Ask it to end, and see it end with a code; what it said."""
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == code, self.said
        assert "Traceback" not in self.said
        return self.said


@dataclass
class Place:
    """A home, a repository that is watched, and a room in which steps leave traces."""

    folder: Path
    command: Command
    repo: Repo
    serves: list[Serve] = field(default_factory=list)

    @property
    def room(self) -> Path:
        return self.folder / "room"

    def serve(self, *arguments: str, poll: float = 0.1, **variables: str) -> Serve:
        log = self.folder / f"serve-{len(self.serves)}.log"
        words = ("serve", "--repo", str(self.repo.folder), "--poll", str(poll), "--port", "0", *arguments)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.command.argv(*words),
                cwd=self.folder,
                env={**self.command.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        made = Serve(process, log)
        self.serves.append(made)
        return made

    def file(self, on: str = "") -> None:
        self.repo.put("penstock.yaml", PIPELINE.format(room=self.room, on=on))

    def commit(self, title: str, **files: str) -> str:
        return self.repo.commit(title, **files)

    def close(self) -> None:
        (self.room / "closed").touch()

    def open(self) -> None:
        (self.room / "closed").unlink()

    def ledger(self, event: str) -> list[str]:
        """What steps wrote, in the order in which it happened."""
        if not (self.room / "ledger").exists():
            return []
        lines = (self.room / "ledger").read_text().splitlines()
        return [line.removeprefix(f"{event} ") for line in lines if line.startswith(f"{event} ")]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        found: list[dict[str, Any]] = self.command("runs", "--json", "-n", "100", cwd=self.folder, code=0).json
        return found[::-1]

    def shown(self) -> list[tuple[str, str, str]]:
        """All runs, oldest first, as (status, trigger, title of the commit), read behind the home's back."""
        database = self.folder / "home" / "penstock.db"
        if not database.exists():
            return []
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            query = """SELECT status, "trigger", json_extract("commit", '$.title') FROM runs ORDER BY id"""
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []
        finally:
            connection.close()

    def until_runs(self, *titles: str) -> None:
        """Wait until exactly these commits, in this order, have a run that passed on a push."""
        wanted = [("passed", "push", title) for title in titles]
        try:
            until(lambda: self.shown() == wanted, f"runs of {titles}")
        finally:
            assert self.shown() == wanted, self.serves[-1].said


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A repository with one commit. At the end every serve is killed, and nothing of the home may be left."""
    environment = isolated(tmp_path / "person")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.update({name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ})
    environment["PENSTOCK_HOME"] = str(tmp_path / "home")
    made = Place(tmp_path, Command(tmp_path / "home", environment), new_repo(tmp_path / "project", environment))
    made.room.mkdir()
    made.file()
    made.commit("one")
    yield made
    (made.room / "closed").unlink(missing_ok=True)
    for serve in made.serves:
        serve.kill()
    for run in made.runs():
        if run["status"] in {"queued", "running"}:
            made.command("cancel", str(run["run"]), cwd=tmp_path, code=0)
    end(made.command, tmp_path)


# --- pushes --------------------------------------------------------------------------------------------------------


def test_three_commits_pushed_at_once_run_in_order(place: Place) -> None:
    """Into a bare repository: the tip at first sight, then each commit of one push once, oldest first."""
    bare = place.folder / "bare.git"
    place.repo.git("clone", "--quiet", "--bare", str(place.repo.folder), str(bare))
    watched = Place(place.folder, place.command, Repo(bare, place.repo.environment), place.serves)
    watched.serve()
    place.until_runs("one")
    for title in ("two", "three", "four"):
        place.commit(title, a=title)
    place.repo.git("push", "--quiet", str(bare), "main")
    place.until_runs("one", "two", "three", "four")
    assert sorted(place.ledger("began")) == [f"{n} {t}" for n, t in enumerate(("one", "two", "three", "four"), 1)]


def test_paths_and_branches_decide(place: Place) -> None:
    """Only commits of the named branches that touch the named paths are run, by each commit's own file.

    All of it arrives in one push: a branch that is seen before its first commit would be run at its tip.
    """
    bare = place.folder / "bare.git"
    place.repo.git("clone", "--quiet", "--bare", str(place.repo.folder), str(bare))
    serve = Place(place.folder, place.command, Repo(bare, place.repo.environment), place.serves).serve()
    place.until_runs("one")
    place.file('on: {push: {branches: [main, "release/*"], paths: ["src/**"]}}')
    place.commit("filtered")
    for branch, path, title in (
        ("main", "docs/a.md", "docs only"),
        ("main", "src/a.py", "src"),
        ("idea", "src/b.py", "idea"),
        ("release/1", "src/c.py", "release"),
    ):
        place.repo.git("checkout", "--quiet", "-B", branch)
        place.repo.put(path, "")
        place.commit(title)
    place.repo.git("push", "--quiet", "--atomic", str(bare), "main", "idea", "release/1")
    serve.hears("commit " + place.repo.git("rev-parse", "--short=7", "release/1") + " on release/1 is asked for")
    place.until_runs("one", "src", "release")
    assert {r["branch"] for r in place.runs()} == {"main", "release/1"}
    assert serve.said.count("is not run: it touches none of on.push.paths: src/**") == 2
    assert serve.said.count("is not run: branch idea is none of on.push.branches: main, release/*") == 1


# --- kills ---------------------------------------------------------------------------------------------------------


def test_a_kill_in_the_middle_loses_and_doubles_nothing(place: Place) -> None:
    """Killed while a step runs: the step lives on, what is committed meanwhile waits, and the next serve goes on."""
    place.close()
    first = place.serve()
    until(lambda: place.ledger("began"), "the step began")
    first.kill()
    place.commit("two", a="2")
    place.commit("three", a="3")
    second = place.serve()
    until(lambda: len(place.ledger("began")) >= 2, "the next run began")
    second.kill()
    place.open()
    place.serve()
    place.until_runs("one", "two", "three")
    assert sorted(line.split()[0] for line in place.ledger("began")) == ["1", "2", "3"]
    assert sorted(place.ledger("ended")) == ["1", "2", "3"]
    assert [step["attempts"] for run in place.runs() for step in run["steps"] if step["name"] == "work"] == [1, 1, 1]


@pytest.mark.parametrize(
    "point",
    [
        "trigger.push:before_commit",
        "trigger.push:after_commit",
        "run.add:before_commit",
        "run.add:after_commit",
        "run.start:after_commit",
        "run.pass:before_commit",
        "run.pass:after_commit",
    ],
)
def test_a_kill_at_every_point_between_commit_and_run(place: Place, point: str) -> None:
    """Wherever serve dies between a commit and the end of its run, the commit has exactly one run in the end."""
    dying = place.serve(PENSTOCK_CRASH=point)
    assert dying.process.wait(PATIENCE) == -signal.SIGKILL
    place.serve()
    place.until_runs("one")
    assert place.ledger("ended") == ["1"]


def test_a_run_whose_command_was_killed_is_adopted(place: Place) -> None:
    """`run` beside serve is killed before its step has ended: serve goes on with it."""
    serve = place.serve()
    place.until_runs("one")
    place.close()
    typed = place.command.start("run", cwd=place.repo.folder)
    until(lambda: len(place.ledger("began")) == 2, "the step began")
    typed.kill()
    typed.communicate()
    serve.hears("run 2 goes on: the command that asked for it is gone")
    place.open()
    until(lambda: place.shown()[-1] == ("passed", "manual", "one"), "run 2 passed")


# --- other commands ------------------------------------------------------------------------------------------------


def test_a_second_serve_refuses(place: Place) -> None:
    """One sentence that names the first, and exit code 2; when the first was killed, the next one serves."""
    first = place.serve()
    first.hears("http://")
    said = place.command("serve", "--port", "0", cwd=place.folder)
    said.refuses("penstock serve is there already", f"pid {first.process.pid}")
    first.kill()
    place.serve().hears("http://")


def test_other_commands_work_beside_it(place: Place) -> None:
    """`run`, `cancel`, `runs` and `status` follow while serve coordinates."""
    place.serve()
    place.until_runs("one")
    assert place.command("run", "--json", cwd=place.repo.folder, code=0).json["status"] == "passed"
    place.close()
    place.commit("two", a="2")
    until(lambda: len(place.ledger("began")) == 3, "the step of the push began")
    assert place.command("cancel", "3", cwd=place.folder, code=0).out == "run 3 is canceled\n"
    place.open()
    assert place.command("status", cwd=place.folder, code=0).out.startswith("nothing is released yet")


def test_it_takes_over_from_a_run(place: Place) -> None:
    """A `run` that was there first goes on coordinating; what is pushed meanwhile is run, and then serve holds."""
    place.close()
    typed = place.command.start("run", cwd=place.repo.folder)
    until(lambda: place.ledger("began"), "the step began")
    place.repo.git("checkout", "--quiet", "-b", "idea")
    serve = place.serve()
    serve.hears("another command coordinates this home just now")
    until(lambda: len(place.ledger("began")) == 2, "the pushed commit began, by the command's own coordinator")
    place.open()
    out, err = typed.communicate(timeout=PATIENCE)
    assert typed.returncode == 0, (out, err)
    until(lambda: state(serve)["serve"]["coordinates"], "serve coordinates")
    until(lambda: [r["status"] for r in place.runs()] == ["passed", "passed"], "both runs passed")


def test_it_ends_well(place: Place) -> None:
    """TERM ends it with exit code 0; the running step is left running, which is said, and the next one takes it up."""
    place.close()
    serve = place.serve()
    until(lambda: place.ledger("began"), "the step began")
    assert "left running: run 1 (work)" in serve.ends()
    assert place.shown() == [("running", "push", "one")]
    place.serve()
    place.open()
    place.until_runs("one")
    assert place.ledger("began") == ["1 one"]


def test_ctrl_c_ends_it_as_well(place: Place) -> None:
    """INT does what TERM does; nothing is left of an idle one."""
    serve = place.serve()
    place.until_runs("one")
    assert serve.ends(signal.SIGINT).splitlines()[-1] == "ended; what serves goes on serving"
    assert place.command.processes() == {}


# --- the page ------------------------------------------------------------------------------------------------------


def get(serve: Serve, path: str, host: str | None = None) -> tuple[int, str]:
    """One request; the status and the body."""
    connection = HTTPConnection("127.0.0.1", serve.port, timeout=20)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def state(serve: Serve) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(serve, "/api/state")[1])
    return found


def test_the_page_shows_the_home(place: Place) -> None:
    """The run, the repository and the process are on the page and in the JSON; another name is refused."""
    serve = place.serve()
    place.until_runs("one")
    until(lambda: [r["status"] for r in state(serve)["runs"]] == ["passed"], "the run is shown")
    found = state(serve)
    assert found["serve"]["pid"] == serve.process.pid
    assert found["runs"][0]["steps"] == {"passed": 2} or found["runs"][0]["steps"] == {"passed": 1, "skipped": 1}
    assert [(r["location"], r["problem"]) for r in found["repositories"]] == [(str(place.repo.folder), None)]
    status, page = get(serve, "/")
    assert status == 200
    assert str(place.repo.folder) in page
    assert get(serve, "/", host="evil.example")[0] == 421
    assert get(serve, "/docs")[0] == 404


def test_a_port_that_is_taken_is_told(place: Place) -> None:
    """Where something else listens, one sentence says which port and what to do."""
    serve = place.serve()
    other = str(place.folder / "other")
    said = place.command("serve", "--port", str(serve.port), cwd=place.folder, PENSTOCK_HOME=other)
    said.refuses(f"port {serve.port} of 127.0.0.1 is taken", "--port")


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("--repo", "nowhere"), {}, ("--repo nowhere is no folder",)),
        (("--repo", "ext::sh -c true"), {}, ("would make git run a command",)),
        (("--file", "../other.yaml"), {}, ("is not a path inside the repository",)),
        ((), {"TZ": "Mars/Base"}, ("TZ=Mars/Base names no time zone",)),
        ((), {"TZ": ":/nowhere"}, ("TZ=/nowhere names no time zone",)),
    ],
)
def test_what_makes_no_sense_is_refused(
    place: Place, arguments: tuple[str, ...], variables: dict[str, str], words: tuple[str, ...]
) -> None:
    """Before anything is begun, one sentence says what is wrong."""
    command = Command(place.command.home, {**place.command.environment, **variables})
    command("serve", "--port", str(free_ports(1)[0]), *arguments, cwd=place.folder).refuses(*words)


# --- hooks ---------------------------------------------------------------------------------------------------------


def hooks(place: Place, *arguments: str, code: int = 0) -> str:
    return place.command("hook", *arguments, cwd=place.folder, code=code).all


def test_a_commit_wakes_it_by_the_hook(place: Place) -> None:
    """With an hour between two looks, a commit in a hooked checkout is run at once."""
    hooks(place, "install", str(place.repo.folder))
    serve = place.serve(poll=3600)
    place.until_runs("one")
    until(lambda: state(serve)["repositories"][0]["problem"] is None, "it watches")
    place.commit("two", a="2")
    place.until_runs("one", "two")


def test_a_push_wakes_it_by_the_hook(place: Place) -> None:
    """The same for a push into a hooked bare repository."""
    bare = place.folder / "bare.git"
    place.repo.git("clone", "--quiet", "--bare", str(place.repo.folder), str(bare))
    assert "post-receive" in hooks(place, "install", str(bare))
    Place(place.folder, place.command, Repo(bare, place.repo.environment), place.serves).serve(poll=3600)
    place.until_runs("one")
    place.commit("two", a="2")
    place.repo.git("push", "--quiet", str(bare), "main")
    place.until_runs("one", "two")


@pytest.mark.parametrize("installed", [1, 2])
def test_a_hook_that_was_there_goes_on_working(place: Place, installed: int) -> None:
    """It is executed as before, with its input and exit code, however often ours is installed, and is put back."""
    bare = place.folder / "bare.git"
    place.repo.git("clone", "--quiet", "--bare", str(place.repo.folder), str(bare))
    hook = bare / "hooks" / "post-receive"
    text = f"#!/bin/sh\ncat >>{place.room}/received\n"
    hook.write_text(text)
    hook.chmod(0o755)
    for _ in range(installed):
        assert "is executed as before" in hooks(place, "install", str(bare))
    sha = place.commit("two", a="2")
    place.repo.git("push", "--quiet", str(bare), "main")
    assert sha in (place.room / "received").read_text()
    assert "removed" in hooks(place, "remove", str(bare))
    assert (hook.read_text(), hook.stat().st_mode & 0o777) == (text, 0o755)
    assert list(hook.parent.glob("*penstock*")) == []


def test_nobody_waits_for_a_hook(place: Place) -> None:
    """A commit goes through where no serve is there, where its FIFO is full, and where the home is gone."""
    hooks(place, "install", str(place.repo.folder))
    place.commit("no home yet", a="1")
    fifo = place.folder / "home" / "pushed"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    place.commit("nobody reads", a="2")
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(reader, b"." * 4096):
            pass
    began = time.monotonic()
    place.commit("nobody empties it", a="3")
    assert time.monotonic() - began < PATIENCE / 2
    while os.read(reader, 1 << 20) != b".":  # what filled it, and then what the hook had to say
        until(lambda: select.select([reader], [], [], 0)[0], "the hook's byte")
    os.close(reader)
    fifo.unlink()
    place.commit("nobody is there", a="4")


def test_what_is_no_hook_of_ours_is_left_alone(place: Place) -> None:
    """`remove` touches nothing that Penstock did not write; `install` names what is in its way."""
    folder = str(place.repo.folder)
    assert "is no hook of Penstock's" in hooks(place, "remove", folder, code=2)
    assert "is not inside a Git repository" in hooks(place, "install", str(place.room), code=2)
    assert "nowhere is no folder" in hooks(place, "install", "nowhere", code=2)
    place.repo.git("config", "core.hooksPath", ".husky")
    assert "lie in .husky (core.hooksPath)" in hooks(place, "install", folder, code=2)
    assert not (place.repo.folder / ".git" / "hooks" / "post-commit").exists()
