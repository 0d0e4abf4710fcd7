"""The crash matrix: something is killed with -9 at a crash point, and what then becomes of the home is looked over.

A case is a scenario, a kind of victim (the coordinator, a shim, the step or server itself), the n-th passing of a
point, and a seed, which decides who of several is the victim, how steps are contained, how long nobody coordinates
after the kill, and whether the command that goes on is killed too.
"""

import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from faults.forks import Fault, Forks
from faults.house import Command, House, answers, until
from penstock.store.sql import open_store
from routers.toys import free_port
from sources.repositories import Repo, isolated, new_repo

KINDS = ("coordinator", "shim", "step")
STUCK = 60.0
"""Seconds after which a command that has not ended is taken for stuck."""

# Everything lies in the folder of all persons of a home, because the repository is the same for all homes.
STEP = """\
name=$1
room=${HOME%/*}
print() { while [ "$i" -lt "$1" ]; do i=$((i + 1)); echo "$name line $i"; done; }
i=0
print 20
echo "began $PENSTOCK_RUN.$PENSTOCK_STEP.$PENSTOCK_ATTEMPT" >>"$room/ledger"
while [ -e "$room/closed" ]; do sleep 0.01; done
sleep 0.08
print 40
echo "ended $PENSTOCK_RUN.$PENSTOCK_STEP.$PENSTOCK_ATTEMPT" >>"$room/ledger"
"""

SERVE = """\
import os
import socket

body = f"{open('model/model.txt').read().strip()}".encode()
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=64)
while True:
    caller, _ = server.accept()
    try:
        with caller:
            caller.settimeout(1)
            caller.recv(4096)
            head = f"HTTP/1.1 200 OK\\r\\ncontent-length: {len(body) + 13}\\r\\nconnection: close\\r\\n\\r\\n"
            caller.sendall(head.encode() + b'{"model": "%s"}' % body)
    except OSError:
        pass
"""

REQUESTS = '{"path": "/", "status": 200}\n'
RETRY = "retry: {max: 9, on: [error, exit], backoff: 10ms}"

STEPS = f"""\
name: steps
steps:
  a: {{run: "sh step.sh a; cp source.txt a.txt", inputs: [step.sh, source.txt], outputs: [a.txt], {RETRY}}}
  b: {{run: "sh step.sh b; cp a.txt b.txt", inputs: [step.sh, a.txt], outputs: [b.txt], {RETRY}}}
  c: {{run: sh step.sh c, inputs: [step.sh], {RETRY}}}
  shaky: {{run: "[ $PENSTOCK_ATTEMPT -gt 1 ]", {RETRY}}}
  loose: {{run: exit 3, allow_failure: true}}
"""

SERVED = f"""\
name: served
steps:
  a: {{run: "sh step.sh a; mkdir model; cp source.txt model/model.txt", inputs: [step.sh, source.txt], \
outputs: [model/], {RETRY}}}
  ask: {{stage: test, needs: package, run: sh step.sh ask, inputs: [step.sh], {RETRY}}}
package: {{model: model/, code: [serve.py, requests.jsonl], serve: python3 -S serve.py, health: /health}}
environments:
  production: {{port: PORT, replicas: 2}}
"""

# Nobody calls in a case, so the recorded requests do; 20 % would do no harm here, which takes few of them.
QUICK = "interval: 100ms, deadline: 60s, error_rate_at_most: 20%, traffic: probe"
ROLLOUTS = {
    "canary": f"probe: requests.jsonl, rollout: {{canary: [25%, 50%], {QUICK}}}",
    "shadow": f"probe: requests.jsonl, rollout: {{shadow: 50%, {QUICK}}}",
    "recreate": "rollout: recreate",
}
"""What production says besides, in a file of its own for each strategy."""

# What is done before, and what is done under the fault.
SCENARIOS = {
    "steps": ((), ("run",)),
    "cancel": ((), ("run",)),
    "serve": ((), ("run",)),
    "replace": ((("run", "--ref", "one"),), ("run",)),
    "rollback": ((("run", "--ref", "one"), ("run",)), ("rollback", "production")),
    "alone": (
        (("run", "--file", "recreate.yaml", "--ref", "one"), ("run", "--file", "recreate.yaml")),
        ("rollback", "--project", ".", "production"),
    ),
    **{
        name: ((("run", "--file", f"{name}.yaml", "--ref", "one"),), ("run", "--file", f"{name}.yaml"))
        for name in ROLLOUTS
    },
}
BACK = ("rollback", "alone")
"""Scenarios that go back: `alone` is a rollback where no two releases may run at once."""
NEW = {"cancel": ("cancel",), **dict.fromkeys(("replace", *BACK, *ROLLOUTS), ("re", "router", "probe"))}
"""Scenarios that repeat the points of others: only points whose names begin or end so are their own."""

FIRST = {"serve": ("step.start:before_commit", 3)}
"""The point from which on a scenario has points of its own: the package."""


@dataclass(frozen=True, slots=True)
class Case:
    """Kill a `kind` of victim at the `number`-th passing of `point` in a scenario."""

    scenario: str
    kind: str
    point: str
    number: int
    seed: int = 1

    def __str__(self) -> str:
        return f"{self.scenario}-{self.kind}-{self.point}#{self.number}-{self.seed}"


@dataclass
class Found:
    """What became of a case. `killed` are the faults that struck; `seconds` are those until something moved again."""

    case: Case
    killed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    seconds: float | None = None
    took: float = 0.0

    @property
    def sound(self) -> bool:
        return not (self.lost or self.doubled or self.stuck)


class StuckError(Exception):
    """A command did not come to its end."""


class Place(House):
    """A home for one case, whose commands are forks."""

    def __init__(self, folder: Path, forks: Forks, repo: Repo, *, contain: bool) -> None:
        super().__init__(folder)
        self.forks = forks
        self.repo = repo
        self._contain = contain

    @property
    def environment(self) -> dict[str, str]:
        found = {**self.repo.environment, "PENSTOCK_HOME": str(self.home), "LANG": "C.UTF-8"}
        return found if self._contain else {**found, "PENSTOCK_CONTAIN": "session"}

    @property
    def room(self) -> Path:
        return self.home / "persons"

    def type(self, *arguments: str, fault: Fault | None = None) -> Command:
        """Type a command in the repository, under a fault."""
        number = len(self.commands)
        streams = self.folder / f"{number}.out", self.folder / f"{number}.err"
        process = self.forks.start(arguments, self.repo.folder, self.environment, streams, fault)
        command = Command(arguments, process, *streams)
        self.commands.append(command)
        return command

    def ledger(self) -> list[list[str]]:
        """What steps noted: an event, and the attempt's id."""
        file = self.room / "ledger"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def noted(self, event: str, count: int = 1) -> None:
        """Wait until so many steps noted an event."""
        until(lambda: sum(what == event for what, _ in self.ledger()) >= count, f"{count} × {event}")

    def coordinator(self) -> int | None:
        """Who holds the coordinator's lock, by the kernel's own list."""
        lock = self.home / "coordinator.lock"
        if not lock.exists():
            return None
        inode = lock.stat().st_ino
        # The kernel lists locks processor by processor: one that changes hands meanwhile may stand there twice, once.
        for _ in range(5):
            found = holders(inode)
            if len(found) <= 1:
                break
        assert len(found) <= 1, f"{found} coordinate at once"
        return found[0] if found else None

    def gone(self) -> None:
        """End everything; nothing is left, and the journal contradicts nothing."""
        for command in self.commands:
            command.process.kill()
        try:
            for gate in self.room.glob("*closed"):
                gate.unlink()
            self.type("stop").ends()
            for (run,) in self.rows("SELECT id FROM runs WHERE status IN ('queued', 'running')"):
                self.type("cancel", str(run)).ends()
            assert not (left := self.processes()), f"left running: {left}"
        finally:
            sweep(self)
        self.journal_is_sound()


class Workshop:
    """Repositories, an empty database and forks for any number of cases; to be used in a `with`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.forks = Forks()
        self._number = 0
        self._environment = isolated(folder / "person")
        self.port = free_port()
        self._database = folder / "empty" / "penstock.db"
        open_store(self._database).close()
        steps, served = (self._repo("steps", STEPS), self._repo("served", SERVED.replace("PORT", str(self.port))))
        self._repos = {name: steps if name in {"steps", "cancel"} else served for name in SCENARIOS}
        self._homes = {name: self._home(repo) for name, repo in {"steps": steps, "serve": served}.items()}

    def _repo(self, name: str, pipeline: str) -> Repo:
        """Two commits: the first is tagged one, and each gives a model of its own."""
        repo = new_repo(self._folder / name, self._environment)
        repo.write(**{"step.sh": STEP, "serve.py": SERVE, "penstock.yaml": pipeline, "requests.jsonl": REQUESTS})
        for rollout, text in ROLLOUTS.items():
            repo.put(f"{rollout}.yaml", pipeline.replace("replicas: 2", f"replicas: 2, {text}"))
        repo.commit("one", **{"source.txt": "one"})
        repo.git("tag", "one")
        repo.commit("two", **{"source.txt": "two"})
        return repo

    def _home(self, repo: Repo) -> Path:
        """A home that knows a repository and has done nothing with it."""
        place = Place(self._folder / f"{repo.folder.name}-home", self.forks, repo, contain=False)
        place.room.mkdir(parents=True)
        shutil.copyfile(self._database, place.home / "penstock.db")
        place.type("plan").ends()
        (place.home / "poke").unlink()
        return place.home

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forks.__exit__(kind, error, trace)

    def place(self, scenario: str, *, contain: bool) -> Place:
        """A new home for a scenario, in which what comes before has happened."""
        self._number += 1
        folder = self._folder / f"case{self._number}"
        repo = self._repos[scenario]
        place = Place(folder, self.forks, repo, contain=contain)
        folder.mkdir()
        shutil.copytree(self._homes["steps" if repo is self._repos["steps"] else "serve"], place.home, symlinks=True)
        for before in SCENARIOS[scenario][0]:
            place.type(*before).ends()
        return place

    def points(self, scenario: str) -> list[tuple[str, int]]:
        """Every passing of a crash point in a scenario without a fault: its name, and the how-manieth it is."""
        place = self.place(scenario, contain=False)
        file = place.folder / "points"
        _act(place, scenario, Fault("record", str(file)))
        self._close(place)
        counted: Counter[str] = Counter()
        found = []
        for point in file.read_text().splitlines():
            counted[point] += 1
            found.append((point, counted[point]))
        first = found.index(FIRST[scenario]) if scenario in FIRST else 0
        wanted = NEW.get(scenario, ("",))
        return [it for it in found[first:] if any(it[0].startswith(w) or f".{w}:" in it[0] for w in wanted)]

    def play(self, case: Case) -> Found:
        """Kill, go on, and look everything over."""
        begun, found = time.monotonic(), Found(case)
        place = self.place(case.scenario, contain=case.seed % 3 == 0)
        try:
            _play(place, found)
            _look_over(place, found, self.port)
            self._close(place)
        except (AssertionError, StuckError, subprocess.TimeoutExpired) as error:
            found.stuck.append(f"{type(error).__name__}: {error}"[:2000])
            sweep(place)
        found.took = time.monotonic() - begun
        if found.sound:
            shutil.rmtree(place.folder)
        return found

    def _close(self, place: Place) -> None:
        """Stop the home; nothing of it is left."""
        place.type("stop").ends()
        assert not (left := place.processes()), f"left running: {left}"


def cases(points: Sequence[tuple[str, str, int]], seeds: Sequence[int]) -> list[Case]:
    """Every point with every kind of victim and every seed. `points` are scenario, name and number.

    Before a commit only the coordinator is killed: whoever else is killed then might as well be killed after it.
    """
    return [
        Case(scenario, kind, name, number, seed)
        for seed in seeds
        for scenario, name, number in points
        for kind in (KINDS if "before" not in name else KINDS[:1])
    ]


# --- one case -----------------------------------------------------------------------------------------------------


def _act(place: Place, scenario: str, fault: Fault) -> Command:
    """The command under the fault, at its end."""
    if scenario != "cancel":
        command = place.type(*SCENARIOS[scenario][1], fault=fault)
        _wait(command)
        return command
    (place.room / "closed").touch()
    command = place.type("run", fault=fault)
    while not place.ledger() and command.process.poll() is None:
        time.sleep(0.005)
    canceling = place.type("cancel", "1")
    _wait(command)
    _wait(canceling)
    assert canceling.process.poll() == 0, canceling.said
    (place.room / "closed").unlink()
    return command


def _wait(command: Command) -> int:
    try:
        return command.process.wait(STUCK)
    except subprocess.TimeoutExpired:
        raise StuckError(f"{' '.join(command.arguments)} did not end\n{command.said}") from None


def _play(place: Place, found: Found) -> None:
    case, dice = found.case, random.Random(f"{found.case}")  # noqa: S311 - a seeded order, no secret
    file = place.folder / "killed"
    fault = Fault(case.kind, str(file), case.point, case.number, case.seed)
    command = _act(place, case.scenario, fault)
    seen = 0
    while (code := command.process.poll()) == -9:
        seen += 1
        time.sleep(dice.random() * 0.08)
        again = Fault("coordinator", str(file), None, dice.randrange(1, 30)) if dice.random() < 0.4 / seen else None
        command, moved = _go_on(place, case.scenario, again)
        found.seconds = max(found.seconds or 0.0, moved)
    found.killed = file.read_text().splitlines() if file.exists() else []
    if code != 0 and case.scenario != "cancel":
        _explain(place, found, command)


def _go_on(place: Place, scenario: str, fault: Fault | None) -> tuple[Command, float]:
    """The next command after a kill, at its end; and the seconds until something moved (or nothing was to move)."""
    last = place.rows("SELECT coalesce(max(seq), 0) FROM events")[0][0]
    asked = place.rows("SELECT count(*) FROM requests WHERE kind = 'run'")[0][0] > len(SCENARIOS[scenario][0])
    begun, at = time.monotonic(), time.time()
    if scenario in BACK:
        command = place.type("resume")
        _wait(command)
        if not place.rows("SELECT 1 FROM releases WHERE status = 'rolled_back'"):
            command = place.type(*SCENARIOS[scenario][1], fault=fault)
    else:
        command = place.type(*(("resume",) if asked or scenario == "cancel" else SCENARIOS[scenario][1]), fault=fault)
    _wait(command)
    moved = place.rows("SELECT min(at) FROM events WHERE seq > ?", last)[0][0]
    return command, (moved - at if moved is not None else time.monotonic() - begun)


def _explain(place: Place, found: Found, command: Command) -> None:
    """A run that is red must be so for the victim that nothing tries again; the next run passes."""
    victims = {line.split()[1] for line in found.killed if not line.startswith("coordinator")}
    once = [v for v in victims if v.rsplit(".", 1)[0].partition(".")[2] not in {"a", "b", "c", "ask", "shaky"}]
    if not once:
        found.lost.append(f"{' '.join(command.arguments)} left with {command.process.poll()}\n{command.said}")
        return
    again = place.type(*SCENARIOS[found.case.scenario][1])
    if _wait(again) != 0:
        found.lost.append(f"after {once}: {again.said}\n(before: {command.said})")


# --- invariants ---------------------------------------------------------------------------------------------------


def _look_over(place: Place, found: Found, port: int) -> None:
    found.lost += lost(place)
    found.doubled += doubled(place)
    if found.case.scenario not in {"steps", "cancel"}:
        found.lost += unserved(place, found.case.scenario, port)
    try:
        place.journal_is_sound()
    except AssertionError as error:
        found.doubled.append(f"the journal contradicts itself: {error}")


def lost(place: Place) -> Iterator[str]:
    """Requests without a run, runs and attempts without an end, logs with a gap: one sentence for each."""
    for (number,) in place.rows(
        "SELECT id FROM requests WHERE kind = 'run' AND NOT EXISTS (SELECT 1 FROM runs WHERE request = requests.id)"
    ):
        yield f"request {number} has no run"
    for number, status in place.rows("SELECT id, status FROM runs WHERE ended IS NULL"):
        yield f"run {number} is {status}"
    for number, status in place.rows("SELECT id, status FROM requests WHERE status = 'open'"):
        yield f"request {number} is {status}"
    for name, status in place.rows("SELECT id, status FROM attempts WHERE status != 'ended'"):
        yield f"attempt {name} is {status}"
    began = {name for event, name in place.ledger() if event == "began"}
    ended = {name for event, name in place.ledger() if event == "ended"}
    query = "SELECT id, run, step FROM attempts WHERE reason = 'exit' AND exit_code = 0"
    for name, run, step in place.rows(query):
        if step in {"a", "b", "c", "ask"}:
            if not {name} <= began & ended:
                yield f"attempt {name} passed and never ended"
            # A shell says that what it waited for was killed; those are words of its own.
            said = place.type("logs", str(run), step).ends().splitlines()
            lines = [line for line in said if line.startswith(step)][-40:]
            if lines != [f"{step} line {number}" for number in range(1, 41)]:
                yield f"the log of {name} has a gap: {lines}"


def doubled(place: Place) -> Iterator[str]:
    """Runs, attempts or effects that happened more than once."""
    for number, count in place.rows("SELECT request, count(*) FROM runs GROUP BY request HAVING count(*) > 1"):
        yield f"request {number} made {count} runs"
    for event in ("began", "ended"):
        for name, count in Counter(name for what, name in place.ledger() if what == event).items():
            if count > 1:
                yield f"attempt {name} {event} {count} times"
    query = "SELECT kind, entity, event, count(*) FROM events WHERE event IN ({}) GROUP BY 1, 2, 3 HAVING count(*) > 1"
    for kind, entity, event, count in place.rows(query.format("'pass', 'promote', 'add', 'retire', 'warn'")):
        if not (kind == "release" and event == "retire"):
            yield f"{kind} {entity}: {event} {count} times"


def unserved(place: Place, scenario: str, port: int) -> Iterator[str]:
    """What should serve and does not, after the next command that acts."""
    place.type("resume").ends()
    serving = place.rows("SELECT version FROM releases WHERE status = 'serving'")
    if len(serving) != 1:
        yield f"{len(serving)} releases serve"
    moving = "SELECT id, status FROM releases WHERE status IN ('starting', 'probing', 'canary', 'draining')"
    for number, status in place.rows(moving):
        yield f"release {number} is {status}"
    wanted = "one" if scenario in BACK else "two"
    limit = time.monotonic() + 10
    said = [answers(port)]
    while said != [said[-1]] * 8 or said[-1] is None:
        if time.monotonic() > limit:
            yield f"production answers {said}"
            return
        time.sleep(0.02)
        said = [answers(port) for _ in range(8)]
    if (said[-1] or {}).get("model") != wanted:
        yield f"production answers {said[-1]}"


def sweep(place: Place) -> None:
    """Whatever a stuck case has left."""
    for _ in range(3):
        for pid in place.processes():
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


def holders(inode: int) -> list[int]:
    """The processes that the kernel lists as holding a lock on a file."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
    return [int(words[4]) for words in lines if words[1] == "FLOCK" and words[5].endswith(f":{inode}")]
