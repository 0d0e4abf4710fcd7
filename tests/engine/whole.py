"""The real engine under every misfortune: coordinator, drivers, store, cache; a scripted machine in invented time.

Coordinators are killed at crash points and between two events; all they had in memory is gone, and the next one finds
the same database and the same machine. Requests come late and twice, followers die, pokes are lost or doubled, clocks
jump, the cache loses bytes. At the end the journal must tell a story in which every promise held.
"""

import asyncio
import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any, cast

from sqlalchemy import text

from engine.books import CAPACITY, NEEDS, BrokenError, expect
from engine.invented import InventedClock, invented_machine, play
from penstock.artifacts import File, Tree, digest_of_bytes
from penstock.cache.disk import DiskCache
from penstock.commits import Commit
from penstock.engine.context import need_of
from penstock.engine.contracts import Command, Ending, Handle, Images, ProcessSpec, Runner, Runtimes, Source
from penstock.engine.coordinator import Coordinator
from penstock.engine.followers import boot_id, poke
from penstock.engine.scheduling import Need
from penstock.engine.world import Home, World
from penstock.pipelines import Pipeline
from penstock.routers.scripted import ScriptedRouter
from penstock.runners.scripted import Act, ScriptedRunner
from penstock.runs import ENDED_RUN, ENDED_STEP, RunStatus
from penstock.store.contract import Follower, Project, StepRecord
from penstock.store.sql import open_store

HOUR = 3600.0
HOME = replace(CAPACITY, memory=CAPACITY.memory << 30)
KNOWN = ("nothing changed", "passed in run")
"""How the reason of a step begins whose result was known."""
PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
FILES = {"src/a.py": b"A = 1\n", "src/b.py": b"B = 2\n"}
TREE = Tree({path: File(digest_of_bytes(data), len(data)) for path, data in FILES.items()})


class KilledError(BaseException):
    """The coordinator is dead at this very point."""


class Files:
    """The files of the one commit there is."""

    tree = TREE

    def read(self, digest: str) -> bytes:
        return {digest_of_bytes(data): data for data in FILES.values()}[digest]  # type: ignore[index]

    def close(self) -> None: ...


class OneCommit:
    """A source that holds one commit."""

    def files(self, _mirror: Path, _sha: str) -> Files:
        return Files()


class NoRuntimes:
    """Runtimes that make nothing, and find nothing wrong."""

    def check(self, *_: object) -> Command:
        return Command("check")

    def variables(self, _environment: object) -> Mapping[str, str]:
        return {}


class Machine(ScriptedRunner):
    """Processes as the dice fall; no two of them may hold the same, whoever started them."""

    def __init__(self, dice: Random, needs: Callable[[str], Any]) -> None:
        super().__init__()
        self._dice, self._needs = dice, needs

    def start(self, spec: ProcessSpec) -> Handle:
        expect(spec.id not in self._processes, f"attempt {spec.id} is started once")
        self.script[spec.id] = self._deal(spec)
        handle = super().start(spec)
        self._check()
        return handle

    def _deal(self, spec: ProcessSpec) -> Act:
        dice = self._dice
        made = {line.split()[1]: spec.id for line in spec.command.splitlines() if line.startswith("make ")}
        code = dice.choices([0, 1, None, 137], [80, 12, 4, 4])[0]
        seconds = dice.choice([0.0, 0.0, 0.02, 0.3, 1.0, 4.0, 30.0])
        return Act(code, seconds=seconds, files=made, oom=code == 137, deaf=dice.random() < 0.1, output="line\n")

    def _check(self) -> None:
        """What lives fits the home, and nobody shares an accelerator or a step."""
        live = [p.spec for p in self._processes.values() if p.ending is None]
        needs = [self._needs(spec.id) for spec in live]
        expect(sum(n.cpu for n in needs) <= CAPACITY.cpu, "never over capacity (processors)")
        expect(sum(n.memory for n in needs) <= CAPACITY.memory << 30, "never over capacity (memory)")
        told = [s.variables["CUDA_VISIBLE_DEVICES"] for s in live if "CUDA_VISIBLE_DEVICES" in s.variables]
        cards = [card for cards in told for card in cards.split(",")]
        expect(len(cards) == len(set(cards)), "an accelerator belongs to one step at a time")
        steps = [spec.id.rsplit(".", 1)[0] for spec in live]
        expect(len(steps) == len(set(steps)), "no step has two live processes")

    def living(self) -> list[str]:
        return [p.spec.id for p in self._processes.values() if p.ending is None]


class Lease:
    """The machine as one coordinator reaches it, until its death."""

    def __init__(self, machine: Machine, life: "Life") -> None:
        self._machine, self._life = machine, life

    def start(self, spec: ProcessSpec) -> Handle:
        self._life.check()
        return self._machine.start(spec)

    def find(self, spec_id: str, record: Path) -> Handle | None:
        self._life.check()
        return self._machine.find(spec_id, record)

    def alive(self, handle: Handle) -> bool:
        self._life.check()
        return self._machine.alive(handle)

    async def wait(self, handle: Handle) -> Ending:
        self._life.check()
        return await self._machine.wait(handle)

    async def end(self, handle: Handle, grace: float) -> None:
        self._life.check()
        await self._machine.end(handle, grace)


LIVES: ContextVar["Life"] = ContextVar("LIVES")
"""The coordinator by which a task was begun."""


class Life:
    """One coordinator from its start to its death, which comes at its `fatal`-th crash point, or from outside."""

    def __init__(self, home: "Whole", fatal: int | None) -> None:
        self._points, self._fatal = 0, fatal
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._store = open_store(home.folder.database, self._point)
        world = World(
            home=home.folder,
            store=self._store,
            cache=home.cache,
            source=cast("Source", OneCommit()),
            runtimes=cast("Runtimes", NoRuntimes()),
            runner=cast("Runner", Lease(home.machine, self)),
            router=ScriptedRouter(),
            images=cast("Images", None),
            clock=home.clock,
            environment={},
            capacity=HOME,
            grace=2.0,
            drain=1.0,
            settle=0.0,
            crash=self._point,
        )
        token = LIVES.set(self)
        self._task = asyncio.create_task(Coordinator(world).coordinate(lambda: home.is_over))
        LIVES.reset(token)

    @property
    def is_dead(self) -> bool:
        return self.died.done()

    def check(self) -> None:
        """The dead do nothing."""
        if self.is_dead:
            raise KilledError

    def _point(self, name: str) -> None:
        self.check()
        self._points += 1
        if self._points == self._fatal:
            self.kill(name)
            raise KilledError

    def kill(self, where: str) -> None:
        """From here on nothing of this coordinator reaches the world."""
        if self.is_dead:
            return
        self.died.set_result(where)
        connection = self._store._connection.connection.dbapi_connection
        assert connection is not None
        connection.close()
        for task in list(self.tasks):
            if task is not asyncio.current_task():
                task.cancel()

    async def end(self) -> str | None:
        """Wait for its death, which it gives, or its own end (None); all that it was doing is over then."""
        either: set[asyncio.Future[Any]] = {self._task, self.died}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self.is_dead:
            self._task.result()
            self._store.close()
            return None
        while self.tasks:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
        self._store._connection.invalidate()
        self._store.close()
        return self.died.result()

    def bury(self, task: "asyncio.Task[Any]") -> None:
        """A task is over; of what the dead raised nobody need know."""
        self.tasks.pop(task, None)
        if self.is_dead and not task.cancelled():
            task.exception()


def _begin(loop: asyncio.AbstractEventLoop, story: Any, **more: Any) -> "asyncio.Task[Any]":
    """A task that is known to the coordinator by which it was begun."""
    task: asyncio.Task[Any] = asyncio.Task(story, loop=loop, **more)
    life = LIVES.get(None)
    if life is not None:
        life.tasks[task] = None
        task.add_done_callback(life.bury)
    return task


class Whole:
    """A home under a seed; `play` asks for so many runs and brings all of them to their end."""

    def __init__(self, folder: Path, database: Path, seed: int) -> None:
        self.dice = Random(seed)  # noqa: S311 - dice that can be thrown again, no secret
        self.folder = Home(folder)
        self.folder.make()
        shutil.copyfile(database, self.folder.database)
        self.cache = DiskCache(self.folder.cache)
        self.clock = InventedClock()
        self.machine = Machine(self.dice, self._need)
        self.seen: Counter[str] = Counter()
        self.is_over = self._is_calm = False
        self._life: Life | None = None
        self._living = {1}
        self._pipelines: dict[int, Pipeline] = {}
        self._faults: list[str] = []
        self._store = open_store(self.folder.database)

    def play(self, runs: int, seconds: float = 3600.0) -> None:
        """Raises BrokenError. `seconds` of invented time are more than all of it needs."""
        handler = _Ears(self)
        logging.getLogger("penstock").addHandler(handler)
        try:
            with invented_machine(self.clock, self._living):
                play(self._story(runs, seconds))
            if self._faults:
                raise BrokenError("; ".join(self._faults))
            self._check_journal()
        finally:
            logging.getLogger("penstock").removeHandler(handler)
            self._store.close()

    def hear(self, fault: str) -> None:
        """Something was said that only a defect says; what the dead say counts for nothing."""
        life = LIVES.get(None)
        if life is None or not life.is_dead:
            self._faults.append(fault)
            self.is_over = True

    def _hear_loop(self, fault: Mapping[str, Any]) -> None:
        """What a callback raised; the dead raise that they are."""
        error = fault.get("exception")
        if not isinstance(error, KilledError) and "closed database" not in str(error):
            self.hear(str(fault))

    async def _story(self, runs: int, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_begin)
        loop.set_exception_handler(lambda _, fault: self._hear_loop(fault))
        others = [asyncio.ensure_future(t) for t in (self._coordinate(), self._misfortunes(), self._clocks())]
        try:
            async with asyncio.timeout(seconds):
                for _ in range(runs):
                    await asyncio.sleep(self.dice.expovariate(0.3))
                    self._ask_run()
                    self._demand()
                await self._calm_down()
        except TimeoutError:
            raise BrokenError(f"every run ends, and these do not: {self._open_runs()} {self._faults}") from None
        finally:
            self.is_over = True
            self._poke()
            await others[0]
            for task in others[1:]:
                task.cancel()
            await asyncio.gather(*others[1:], return_exceptions=True)

    async def _calm_down(self) -> None:
        """Nothing dies any more, and whoever left comes back."""
        self._is_calm = True
        while not self._faults and (waiting := self._open_runs() or self._store.requests.open_numbers()):
            for run in self._store.runs.open():
                if run.owner.pid not in self._living:
                    self._ask("resume", {"run": run.id}, self._follower())
            self.seen["waits"] += bool(waiting)
            await asyncio.sleep(5.0)

    def _open_runs(self) -> list[int]:
        return [run.id for run in self._store.runs.open()]

    # --- the coordinators

    async def _coordinate(self) -> None:
        while not self.is_over:
            fatal = None if self._is_calm else self.dice.choice([self.dice.randint(1, 30), self.dice.randint(1, 300)])
            life = self._life = Life(self, fatal)
            where = await life.end()
            self._life = None
            if where is not None:
                self.seen[f"killed {where}"] += 1
                await asyncio.sleep(self.dice.choice([0.0, 0.1, 1.0, 10.0]))

    async def _misfortunes(self) -> None:
        """Kills from outside, deaths of followers, losses of the cache."""
        while True:
            await asyncio.sleep(self.dice.expovariate(0.2))
            if self._is_calm:
                return
            what = self.dice.choice(["kill", "follower", "follower", "blobs", "resume"])
            self.seen[what] += 1
            if what == "kill" and self._life is not None:
                self._life.kill("from outside")
            elif what == "follower":
                self._living.discard(self.dice.choice(sorted(self._living)))
                self._living.add(1)
            elif what == "blobs":
                self._lose_blobs()
            elif what == "resume":
                self._ask("resume", {}, self._follower())

    def _lose_blobs(self) -> None:
        for blob in sorted(p for p in (self.folder.cache / "blobs").rglob("*") if p.is_file()):
            if self.dice.random() < 0.2:
                blob.unlink()

    async def _clocks(self) -> None:
        while True:
            await asyncio.sleep(self.dice.expovariate(1 / 120))
            self.seen["jumps"] += 1
            self.clock.jump(self.dice.choice([HOUR, -HOUR, 8 * HOUR, 0.5, -0.5]))

    # --- the people

    def _follower(self) -> Follower:
        pid = max(self._living) + 1 + self.dice.randrange(3)
        self._living.add(pid)
        return Follower(pid, pid, boot_id())

    def _ask(self, kind: str, payload: Mapping[str, Any], follower: Follower) -> int:
        """A request; its poke comes, or comes twice, or is lost."""
        number = self._store.requests.add(kind, payload, follower, "ada")
        self.seen[f"asked to {kind}"] += 1
        for _ in range(self.dice.choice([0, 1, 1, 2])):
            self._poke()
        return number

    def _poke(self) -> None:
        poke(self.folder.fifo)

    def _ask_run(self) -> None:
        pipeline = random_pipeline(self.dice)
        commit = Commit("a" * 40, "main", ("main",), "main", "ada", "a change", "2024-01-01T00:00:00+00:00")
        payload = {
            "project": asdict(PROJECT),
            "commit": asdict(commit),
            "change": [],
            "version": "0.1.0",
            "trigger": "manual",
            "mirror": "sources/mirror",
            "pipeline": pipeline.model_dump(mode="json"),
            "options": {"no_cache": True} if self.dice.random() < 0.3 else {},
            "notes": [],
        }
        self._ask("run", payload, self._follower())

    def _demand(self) -> None:
        """Now and then somebody stops, resumes or reruns a run, twice where they are impatient."""
        runs = self._store.runs.latest(limit=12)
        if not runs or self.dice.random() < 0.5:
            return
        run = self.dice.choice(runs).id
        kind = self.dice.choice(["cancel", "interrupt", "interrupt", "rerun", "rerun", "resume"])
        payload = {"run": run} if kind in {"rerun", "resume"} else {"runs": [run]}
        for _ in range(self.dice.choice([1, 1, 2])):
            self._ask(kind, payload, self._follower())

    def _need(self, attempt: str) -> Any:
        run, step, _ = attempt.split(".")
        number = int(run)
        if number not in self._pipelines:
            self._pipelines[number] = Pipeline.model_validate(self._store.runs.get(number).pipeline)
        steps = self._pipelines[number].steps
        return need_of(steps[step]) if step in steps else Need()

    # --- the story that the journal tells

    def events(self) -> list[tuple[str, str, str, str, str]]:
        """Kind, entity, event, status afterwards and reason of every transition."""
        query = text("SELECT kind, entity, event, after, coalesce(detail, '') FROM events ORDER BY seq")
        return [cast("Any", tuple(row)) for row in self._store._connection.execute(query)]

    @property
    def digest(self) -> str:
        with open_store(self.folder.database) as store:
            self._store = store
            return hashlib.blake2b(repr(self.events()).encode(), digest_size=16).hexdigest()

    def _check_journal(self) -> None:
        events = self.events()
        self.seen["transitions"] = len(events)
        ends = Counter(entity for kind, entity, _, after, _ in events if kind == "run" and after in ENDED_RUN)
        runs = self._store.runs.latest(limit=1_000_000)
        expect(ends == Counter(str(run.id) for run in runs), "each run ends once")
        self.seen.update(f"runs {run.status}" for run in runs)
        self._check_attempts([(entity, event) for kind, entity, event, _, _ in events if kind == "attempt"])
        self._check_order([event[1:] for event in events if event[0] == "step"])
        for run in runs:
            self._check_steps(run.id, run.status)
            expect(not [s for s in self.machine.living() if s.startswith(f"{run.id}.")], "no process outlives its run")
        query = text("SELECT id, error FROM requests WHERE status = 'open' OR error LIKE '%defect%'")
        found = [str(row) for row in self._store._connection.execute(query)]
        expect(not found, f"every request is carried out or refused in words: {found}")

    def _check_attempts(self, events: list[tuple[str, str]]) -> None:
        live: dict[str, str] = {}
        begun: set[str] = set()
        for attempt, event in events:
            step = attempt.rsplit(".", 1)[0]
            if event == "begin":
                expect(step not in live and attempt not in begun, f"{attempt}: no step has two live attempts")
                live[step] = attempt
                begun.add(attempt)
                used = sum(self._need(one).cpu for one in live.values())
                expect(used <= CAPACITY.cpu, f"{attempt}: never over capacity")
            elif event == "end":
                expect(live.pop(step, None) == attempt, f"{attempt}: each attempt ends once")
        expect(not live, f"each attempt ends: {live}")

    def _check_steps(self, run: int, status: RunStatus) -> None:
        """Every step of a run that ended has ended, and where it passed none is red."""
        for step in self._store.runs.steps(run):
            expect(step.status in ENDED_STEP, f"{run}/{step.name}: the steps of a run that ended have ended")
            if status is RunStatus.PASSED:
                fine = step.status in {"passed", "warned", "skipped"}
                expect(fine, f"{run}/{step.name} {step.status}: a run that passed has no red step")

    def _check_order(self, events: list[tuple[str, str, str, str]]) -> None:
        """Whenever a step starts, or is known, all that it needs is green, as far as it must be."""
        records = {f"{run.id}/{s.name}": s for run in self._store.runs.latest(limit=10**6) for s in self._steps(run.id)}
        green: set[str] = set()
        ended: set[str] = set()
        for entity, event, after, reason in events:
            record = records[entity]
            known = event == "skip" and reason.startswith(KNOWN)
            if event == "start" or known:
                step = self._pipelines[record.run].steps.get(record.name)
                needs = {f"{record.run}/{name}" for name in record.needs}
                enough = green if step is None or step.when.outcome == "passed" else ended
                expect(needs <= enough, f"{entity} began, and {sorted(needs - enough)} had not ended as they must")
            for found, is_in in ((green, after in {"passed", "warned"} or known), (ended, after in ENDED_STEP)):
                found.add(entity) if is_in else found.discard(entity)

    def _steps(self, run: int) -> list[StepRecord]:
        self._need(f"{run}.check.1")
        return self._store.runs.steps(run)


class _Ears(logging.Handler):
    def __init__(self, home: Whole) -> None:
        super().__init__(logging.ERROR)
        self._home = home

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else ""
        self._home.hear(f"{record.getMessage()}: {cause!r}")


def random_pipeline(dice: Random) -> Pipeline:
    """A pipeline of 1 to 12 steps; some read and write files, some take accelerators, some are tried again."""
    steps: dict[str, Any] = {}
    for position in range(dice.choice([1, 2, 3, 5, 8, 12])):
        name = f"s{position}"
        need = dice.choice(NEEDS)
        step: dict[str, Any] = {
            "name": name,
            "run": f"do {dice.randrange(4)}",
            "needs": [n for n in steps if dice.random() < 0.3],
            "resources": {
                "cpu": need.cpu,
                "memory": (need.memory << 30) or None,
                "gpu": {"count": need.gpus, "type": need.gpu_kind},
            },
        }
        if dice.random() < 0.5:
            step["inputs"] = [dice.choice(["src/", "src/a.py"])]
            for other in [n for n in steps if steps[n].get("outputs") and dice.random() < 0.4]:
                step["inputs"].append(f"{other}-{steps[other]['salt']}/")
        if dice.random() < 0.5:
            salt = dice.randrange(3)
            step.update(outputs=[f"{name}-{salt}/"], salt=salt)
            step["run"] += f"\nmake {name}-{salt}/file"
        if dice.random() < 0.3:
            reasons = dice.sample(["exit", "error", "timeout", "oom", "lost"], 2)
            step["retry"] = {"max": dice.choice([1, 2]), "on": reasons, "backoff": dice.choice([0.1, 1.0])}
        if dice.random() < 0.3:
            step["timeout"] = dice.choice([0.5, 5.0, 60.0])
        if dice.random() < 0.1:
            step["allow_failure"] = True
        if step["needs"] and dice.random() < 0.15:
            step["when"] = dice.choice(["always", "failed"])
        steps[name] = step
    named = {n: {k: v for k, v in s.items() if k != "salt"} for n, s in steps.items()}
    whole: dict[str, Any] = {"name": "digits", "fail_fast": dice.random() < 0.15, "steps": named}
    if dice.random() < 0.3:
        older = dice.choice(["wait", "cancel"])
        whole["concurrency"] = {"group": dice.choice("ab"), "limit": dice.choice([1, 2]), "older": older}
    return Pipeline.model_validate(whole)
