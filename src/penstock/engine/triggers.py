"""Triggers: commits that are pushed, times that come and drift that is seen become requests, each exactly once.

What was decided is a row of the store, written together with the request that it made. So a kill at any point
neither loses a run nor makes a second one, and where a branch was left off is read from the same rows.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Protocol, TypeVar

from penstock.commits import Change, Trigger
from penstock.drifts import asks_again
from penstock.engine.contracts import Located
from penstock.engine.followers import is_alive, myself, poke
from penstock.engine.world import World
from penstock.errors import NotFoundError, PenstockError, PipelineError
from penstock.parts import Triggers
from penstock.patterns import branch_matches, matches
from penstock.pipelines import Pipeline
from penstock.runs import RunStatus
from penstock.schedules import due
from penstock.store.contract import NOBODY, Values
from penstock.store.triggers import Occasion

WINDOW = 32
"""Requests of one project that may be open by its triggers; what is pushed beyond waits in the repository."""
HELD_BACK = 0.5
"""Seconds until another look, while something waits there."""
MISSED = 24 * 3600.0
"""A due time that nobody saw to is still run once after at most so many seconds."""

log = logging.getLogger("penstock")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sight:
    """A repository as it was seen: the project in it, its branches with their tips, and the default branch."""

    project: str
    located: Located
    branches: Mapping[str, str]
    default: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What one commit asks for by its own file: the pipeline, what the commit touches, and the request of its run."""

    pipeline: Pipeline
    change: Callable[[], Change]
    payload: Callable[[Trigger], Values]


class Reader(Protocol):
    """Reads one repository. Every method blocks, and raises SourceError where the repository cannot be read."""

    @property
    def label(self) -> str:
        """What a person knows it by; never with a password."""
        ...

    def glance(self) -> str:
        """A name for where the branches stand; another one when any of them moved."""
        ...

    def look(self) -> Sight:
        """Bring the repository near."""
        ...

    def before(self, sight: Sight) -> Mapping[str, str]:
        """Of each branch the first parent of its tip; a branch of one commit has none."""
        ...

    def since(self, sight: Sight, tip: str, known: Sequence[str]) -> Sequence[str]:
        """The commits that led to a tip and to none of the known ones, oldest first, along first parents."""
        ...

    def asked(self, sight: Sight, branch: str, sha: str) -> Asked:
        """What a commit of a branch asks for. Raises PipelineError or NotFoundError where its file says nothing."""
        ...


# --- decisions -----------------------------------------------------------------------------------------------------


def why_not_pushed(on: Triggers | None, branch: str, default: str | None, change: Callable[[], Change]) -> str | None:
    """Why a commit that was pushed to a branch makes no run, or None where it makes one.

    Without `on` the default branch is run. `change` is asked for only where paths decide.
    """
    if on is None:
        return None if branch == default else f"its file has no on.push, and {branch} is not the default branch"
    push = on.push
    if push is None:
        return "its file has no on.push"
    if push.branches is not None and not any(branch_matches(pattern, branch) for pattern in push.branches):
        return f"branch {branch} is none of on.push.branches: {', '.join(push.branches)}"
    if push.paths is not None and not any(matches(p, path) for path in change().paths for p in push.paths):
        return f"it touches none of on.push.paths: {', '.join(push.paths)}"
    return None


def new_commits(
    sight: Sight, branch: str, seen: Mapping[str, str], since: Callable[[str, Sequence[str]], Sequence[str]]
) -> Sequence[str]:
    """The commits of a branch that were not decided yet, oldest first; `seen` has the last one of each branch.

    A branch that was seen before goes on where it was left off. A new one has what no other branch had, or at
    least its tip.
    """
    tip = sight.branches[branch]
    if seen.get(branch) == tip:
        return ()
    if branch in seen:
        return since(tip, [seen[branch]])
    return since(tip, list(seen.values())) or (tip,)


def missed_last(cron: str, seen: float, now: float, zone: tzinfo) -> float | None:
    """The last due time after `seen` and up to `now`, none that is older than `MISSED`; seconds since the epoch."""
    after = datetime.fromtimestamp(max(seen, now - MISSED), UTC)
    moments = due(cron, after, datetime.fromtimestamp(now, UTC), zone)
    return moments[-1].timestamp() if moments else None


# --- watching ------------------------------------------------------------------------------------------------------


class Watch:
    """Watches one repository for a process that holds the coordinator of a home.

    `zone` is the clock of the schedules; `say` is told what a person may want to read, one line each. `problem` is
    why the repository cannot be watched just now; `looked` is when that was last tried, in seconds since the epoch.
    """

    def __init__(self, world: World, reader: Reader, zone: tzinfo, actor: str, say: Callable[[str], None]) -> None:
        self._world = world
        self._store = world.store
        self._reader = reader
        self._zone = zone
        self._actor = actor
        self._say = say
        self._glance: str | None = None
        self._sight: Sight | None = None
        self._on: tuple[str, Triggers | None] = ("", None)
        self._held_back = False
        self._poked = False
        self.problem: str | None = None
        self.looked: float | None = None

    @property
    def label(self) -> str:
        return self._reader.label

    async def watch(self, poked: asyncio.Event, period: float) -> None:
        """Look whenever somebody poked, and every `period` seconds; see to schedules and drift every minute at least.

        Never returns.
        """
        next_look = time.monotonic()
        while True:
            if poked.is_set() or self._held_back or time.monotonic() >= next_look:
                self._poked = poked.is_set()  # somebody knows that something moved: a glance would only cost time
                poked.clear()
                next_look = time.monotonic() + period
                await self._guarded(self.poll)
            await self._guarded(self.tick)
            await self._guarded(self.see_drift)
            pause = HELD_BACK if self._held_back else next_look - time.monotonic()
            await _wait(poked, max(0.0, min(pause, 60 - self._world.clock.now() % 60)))

    async def poll(self) -> None:
        """Look once, and ask for every commit that was not decided yet. Raises SourceError."""
        self.looked = self._world.clock.now()
        glance = None if self._poked else await _aside(self._reader.glance)
        if glance is None or glance != self._glance or self._held_back or self._sight is None:
            self._sight = sight = await _aside(self._reader.look)
            await self._push(sight)
            await self._read_triggers(sight)
            self._glance = glance
        self._settle(None)

    async def tick(self) -> None:
        """Ask for the scheduled runs that are due now. Raises SourceError."""
        now, sight = self._world.clock.now(), self._sight
        if sight is None or sight.default is None or sight.default not in sight.branches:
            return
        seen = self._store.triggers.newest(sight.project, Trigger.SCHEDULE)
        on = self._on[1]
        for name, cron in ((on and on.schedule) or {}).items():
            # With its text: a schedule that was changed is a new one, and never due before it was written.
            label = f"{name}: {cron}"
            if label not in seen:
                first = Occasion(sight.project, Trigger.SCHEDULE, label, str(int(now)))
                self._store.triggers.begin_at(first)
                continue
            moment = missed_last(cron, float(seen[label]), now, self._zone)
            if moment is not None:
                occasion = Occasion(sight.project, Trigger.SCHEDULE, label, str(int(moment)))
                await self._of_tip(sight, occasion, sight.default)

    async def see_drift(self) -> None:
        """Ask for the run of a drift that was seen, unless the one before it goes on. Raises SourceError."""
        sight, on = self._sight, self._on[1]
        if sight is None or on is None or sight.default is None or sight.default not in sight.branches:
            return
        for environment in on.drift:
            release = self._store.releases.serving(sight.project, environment)
            found = [] if release is None else self._store.drifts.detections(release.id)
            if not asks_again(len(found)):
                continue
            occasion = Occasion(sight.project, Trigger.DRIFT, environment, f"{found[-1].release}.{found[-1].number}")
            if self._store.triggers.decided(occasion):
                continue
            if self._store.triggers.going_on(sight.project, Trigger.DRIFT, environment):
                self._decide(occasion, "the run that its drift asked for before goes on")
            else:
                await self._of_tip(sight, occasion, sight.default)

    # --- one by one

    async def _push(self, sight: Sight) -> None:
        """Decide on the new commits of every branch, the default branch first, each branch in its own order."""
        self._held_back = False
        seen = self._store.triggers.newest(sight.project, Trigger.PUSH) or await self._begin(sight)
        for branch in sorted(sight.branches, key=lambda name: (name != sight.default, name)):
            for sha in await _aside(partial(new_commits, sight, branch, seen, partial(self._reader.since, sight))):
                occasion = Occasion(sight.project, Trigger.PUSH, branch, sha)
                if self._store.triggers.decided(occasion):
                    continue
                if self._store.triggers.going_on(sight.project) >= WINDOW:
                    self._held_back = True
                    return
                self._decide(occasion, await _aside(partial(self._pushed, sight, occasion)))
            seen[branch] = sight.branches[branch]

    async def _begin(self, sight: Sight) -> dict[str, str]:
        """A repository that was never seen: all before the tips of its branches is history, in one transaction."""
        before = dict(await _aside(partial(self._reader.before, sight)))
        with self._store.transaction():
            for branch, sha in before.items():
                self._store.triggers.begin_at(Occasion(sight.project, Trigger.PUSH, branch, sha))
        return before

    def _pushed(self, sight: Sight, occasion: Occasion) -> Values | str:
        """The request that a pushed commit makes, or the reason why it makes none."""
        try:
            asked = self._reader.asked(sight, occasion.name, occasion.value)
        except (PipelineError, NotFoundError) as error:
            return str(error)
        reason = why_not_pushed(asked.pipeline.on, occasion.name, sight.default, asked.change)
        return asked.payload(Trigger.PUSH) if reason is None else reason

    async def _of_tip(self, sight: Sight, occasion: Occasion, branch: str) -> None:
        asked = await _aside(partial(self._reader.asked, sight, branch, sight.branches[branch]))
        self._decide(occasion, await _aside(partial(asked.payload, occasion.kind)))

    async def _read_triggers(self, sight: Sight) -> None:
        """Schedules and drift are those of the default branch's tip; a file that cannot be read has none."""
        branch = sight.default
        tip = sight.branches.get(branch) if branch is not None else None
        if branch is None or tip is None or tip == self._on[0]:
            return
        try:
            asked = await _aside(partial(self._reader.asked, sight, branch, tip))
        except (PipelineError, NotFoundError):
            self._on = (tip, None)
            return
        self._on = (tip, asked.pipeline.on)

    def _decide(self, occasion: Occasion, wanted: Values | str) -> None:
        """Make the request of an occasion, or remember why there is none; both at once with the occasion itself."""
        triggers, number = self._store.triggers, None
        with self._store.transaction():
            if isinstance(wanted, str):
                triggers.pass_over(occasion, wanted)
            else:
                number = triggers.ask(occasion, wanted, myself(), self._actor)
            self._world.crash(f"trigger.{occasion.kind}:before_commit")
        self._world.crash(f"trigger.{occasion.kind}:after_commit")
        if number is not None:
            poke(self._world.home.fifo)
            self._say(f"{self.label}: {_told(occasion)} is asked for")
        elif isinstance(wanted, str):
            self._say(f"{self.label}: {_told(occasion)} is not run: {wanted}")

    # --- trouble

    async def _guarded(self, part: Callable[[], Awaitable[None]]) -> None:
        """What goes wrong with one repository is said once, and tried again later."""
        try:
            await part()
        except (PenstockError, OSError) as error:
            self._settle(str(error))
        except Exception as error:  # the loop's edge: one repository's defect must not stop the others
            log.exception("watching %s met a defect of Penstock", self.label)
            self._settle(f"a defect of Penstock ({type(error).__name__}: {error}): please report it")

    def _settle(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            self._say(f"{self.label}: {problem}")
        self.problem = problem


def _told(occasion: Occasion) -> str:
    """An occasion in a person's words."""
    if occasion.kind is Trigger.SCHEDULE:
        return f"the schedule {occasion.name}"
    if occasion.kind is Trigger.DRIFT:
        return f"the drift of {occasion.name}"
    return f"commit {occasion.value[:7]} on {occasion.name}"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _aside(call: Callable[[], T]) -> T:
    """Await a blocking call in a thread that never holds up our end: git may wait for a network for minutes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        value, error = None, None
        try:
            value = call()
        except BaseException as caught:  # noqa: BLE001 (raised again where it is awaited)
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, daemon=True, name="penstock-source").start()
    return await future


# --- adopting ------------------------------------------------------------------------------------------------------


class Adopter:
    """Goes on with runs whose follower died, as `resume` does; those that a person interrupted stay for `resume`."""

    def __init__(self, world: World, actor: str) -> None:
        self._world = world
        self._actor = actor
        self._adopted: set[int] = set()

    def adopt(self) -> list[int]:
        """Ask for every orphan once; returns their numbers."""
        owners = self._world.store.runs.owners()
        waiting = {n for n, status, _ in owners if status is RunStatus.WAITING}
        self._adopted -= waiting  # who approves it is its owner then, and may die too
        left = [n for n, _, owner in owners if owner != NOBODY and not is_alive(owner)]
        found = [n for n in left if n not in self._adopted | waiting]
        if found:
            with self._world.store.transaction():
                for number in found:
                    self._world.store.requests.add("resume", {"run": number}, myself(), self._actor)
            poke(self._world.home.fifo)
        self._adopted.update(found)
        return found
