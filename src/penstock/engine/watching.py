"""Releases after their promotion: the router's counters go on, and a breach rolls back or is told.

Each look is recorded before anything follows from it, with the counters that it read, so a coordinator that dies is
followed by one that counts on where it stopped. What a breach asks for is recorded with it, and struck off when done.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from penstock.engine.commanding import followed, judged
from penstock.engine.contracts import Handle, ProcessSpec
from penstock.engine.installing import install, last_line, manifest_of, package_folder, variables_of
from penstock.engine.serving import image_of, in_image, runtime_variables
from penstock.engine.world import World
from penstock.environments import WatchRules
from penstock.errors import EngineError, PenstockError
from penstock.releases import ReleaseStatus
from penstock.store.contract import Release
from penstock.traffic import NOTHING, Reading
from penstock.watches import Watch, begun, looked, taken_up, written

REST = 60.0
"""Seconds after which a look is recorded though nothing passed."""
AGAIN = 10
"""Looks until a rollback that was refused is tried again."""
NOTIFY_TIMEOUT = 60.0
"""Seconds that a command that tells of a breach may take."""

Breach = Callable[[Release, str], Awaitable[None]]
"""Rolls a release back, for the reason given. Raises StateError where that cannot be."""

log = logging.getLogger("penstock")


class Watching:
    """The watches of a home. `breach` rolls back."""

    def __init__(self, world: World, breach: Breach) -> None:
        self._world = world
        self._releases = world.store.releases
        self._breach = breach
        self._looking: asyncio.Task[None] | None = None
        self._acting: dict[int, asyncio.Task[None]] = {}
        self._faulty: set[int] = set()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What goes on, to be canceled by who leaves."""
        return [*([] if self._looking is None else [self._looking]), *self._acting.values()]

    def recover(self) -> None:
        """Watch from now on whatever serves and asks for it, and go on with what breaches asked for."""
        for release in self._releases.of():
            if (release.watch or {}).get("todo"):
                self._act(release.id)
        self._looking = asyncio.create_task(self._watch())

    async def end(self, release: Release) -> None:
        """End what lives of a release's notice; what its breach asked for is dropped."""
        watch = release.watch or {}
        if not watch.get("todo"):
            return
        acting = self._acting.pop(release.id, None)
        if acting is not None:
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
        handle = self._found(release.id, (self._releases.get(release.id).watch or {}).get("notified"))
        if handle is not None:
            await self._world.runner.end(handle, self._world.grace)
        for what in watch["todo"]:
            self._done(release.id, what)

    async def _watch(self) -> None:
        while True:
            for release in self._releases.current():
                if release.status is ReleaseStatus.SERVING and release.spec.get("watch"):
                    await self._turn(release)
            await asyncio.sleep(self._world.look)

    async def _turn(self, release: Release) -> None:
        try:
            await self._look(release)
            self._faulty.discard(release.id)
        except Exception:  # the loop's edge: one release's defect must not stop the others
            if release.id not in self._faulty:
                log.exception("watching release %s met a defect of Penstock", release.id)
            self._faulty.add(release.id)

    # --- looks

    async def _look(self, release: Release) -> None:
        before = taken_up((release.watch or {}).get("state"))
        if before is not None and before.ended is not None:
            return
        read = await self._read(release)
        known = before
        if before is None:
            if read is None:
                return  # it begins with what the router has counted
            before = self._begun(release, read)
        after = looked(before, self._world.clock.now(), read)
        if known is None or _is_news(known, after):
            self._record(release, after)
        if after.ended is not None and after.ended.kind == "breach":
            self._act(release.id)

    async def _read(self, release: Release) -> Reading | None:
        """The router's counters of a release; None where it does not answer, or does not run."""
        try:
            found = await self._world.router.counted([str(release.id)])
        except EngineError:
            return None
        arm = found.arms.get(str(release.id), NOTHING)
        return Reading(found.epoch, arm, NOTHING) if found.epoch else None

    def _begun(self, release: Release, read: Reading) -> Watch:
        """The watch of a release that was just promoted; one that had no traffic before is counted from its start."""
        since = self._world.clock.now() if release.since is None else release.since
        tried = "state" in (release.rollout or {}) or _round(release) > 0
        first = read if tried else replace(read, canary=NOTHING)
        return begun(_rules(release), since, first, self._reference(release))

    def _reference(self, release: Release) -> Sequence[int]:
        """Latencies of the release before: as the rollout saw them or as its own watch did, whichever saw more."""
        rollout: Mapping[str, Any] = (release.rollout or {}).get("state") or {}
        compared = tuple((rollout.get("evidence") or {}).get("history") or ())
        before = None if release.replaced is None else self._releases.get(release.replaced).watch
        watch = taken_up((before or {}).get("state"))
        return max(compared, () if watch is None else watch.arm.latencies, key=sum)

    def _record(self, release: Release, watch: Watch) -> None:
        """How a watch stands; of a breach also the reason, and what it asks for, before that is done."""
        values: dict[str, Any] = {"round": _round(release), "state": written(watch)}
        ended = watch.ended is not None
        more: dict[str, Any] = {}
        if watch.ended is not None and watch.ended.kind == "breach":
            rules = _rules(release)
            wanted = {"rollback": rules.on_breach == "rollback", "notify": rules.notify is not None}
            values["todo"] = [name for name, is_wanted in wanted.items() if is_wanted]
            more["reason"] = f"its watch was broken: {watch.ended.reason}"
        with self._world.store.transaction(durable=ended):
            self._releases.note(release.id, watch=values, **more)
        self._world.crash("watch.look:after_recorded")

    # --- what a breach asks for

    def _act(self, number: int) -> None:
        self._acting[number] = asyncio.create_task(self._carry_out(number))

    async def _carry_out(self, number: int) -> None:
        try:
            await self._roll_back(number)
            await self._notify(number)
        except Exception:  # the loop's edge: what is not struck off is done by the next coordinator
            log.exception("the breach of release %s met a defect of Penstock", number)
        finally:
            self._acting.pop(number, None)

    def _wants(self, number: int, what: str) -> bool:
        return what in (self._releases.get(number).watch or {}).get("todo", ())

    async def _roll_back(self, number: int) -> None:
        """Roll back, again and again where that is refused, while it serves; why it was refused stands on it."""
        while self._wants(number, "rollback"):
            release = self._releases.get(number)
            if release.status is not ReleaseStatus.SERVING:
                self._done(number, "rollback")
                return
            why = str((release.watch or {})["state"]["ended"]["reason"])
            try:
                await self._breach(release, why)
            except PenstockError as error:
                reason = f"its watch was broken: {why}; it was not rolled back: {error}"
                if release.reason != reason:
                    self._releases.note(number, reason=reason)
                    if self._wants(number, "notify"):
                        await self._notify(number)  # who is told may help
            if self._releases.get(number).status is ReleaseStatus.SERVING:
                await asyncio.sleep(AGAIN * self._world.look)

    def _done(self, number: int, what: str) -> None:
        watch = self._releases.get(number).watch or {}
        with self._world.store.transaction(durable=True):
            self._releases.note(number, watch={**watch, "todo": [w for w in watch["todo"] if w != what]})

    async def _notify(self, number: int) -> None:
        """Run the person's command once: recorded before and after; one that lives is followed, never run beside."""
        if not self._wants(number, "notify"):
            return
        release = self._releases.get(number)
        known = (release.watch or {}).get("notified")
        try:
            handle = self._found(number, known) or await self._start(release)
            reason, ending = await followed(
                self._world, handle, self._world.clock.monotonic() + NOTIFY_TIMEOUT, lambda: None
            )
            event, words = judged(reason, ending, NOTIFY_TIMEOUT)
            failure = None if event == "pass" else f"{words}{last_line(Path(handle.log))}"
        except (PenstockError, OSError) as error:
            failure = str(error)
        self._world.crash("watch.notify:after_effect")
        if failure is not None:
            said = self._releases.get(number).reason or ""
            self._releases.note(number, reason=f"{said}; its notify command did not pass ({failure})")
        self._done(number, "notify")

    def _found(self, number: int, known: Mapping[str, Any] | None) -> Handle | None:
        """The process that an earlier coordinator started, if it did."""
        if known is None:
            return None
        if known["handle"] is not None:
            return Handle(**known["handle"])
        release = self._releases.get(number)
        return self._world.runner.find(_process(release), self._stem(release).with_suffix(".record"))

    def _stem(self, release: Release) -> Path:
        return self._world.home.release(release.id) / f"notify{_nth(release)}"

    async def _start(self, release: Release) -> Handle:
        await asyncio.to_thread(install, self._world, release)
        self._note_process(release.id, None)
        handle = self._world.runner.start(self._spec(release))
        self._world.crash("watch.notify:after_start")
        self._note_process(release.id, handle)
        return handle

    def _note_process(self, number: int, handle: Handle | None) -> None:
        watch = self._releases.get(number).watch or {}
        notified = {"handle": None if handle is None else asdict(handle), "at": self._world.clock.now()}
        with self._world.store.transaction(durable=True):
            self._releases.note(number, watch={**watch, "notified": notified})

    def _spec(self, release: Release) -> ProcessSpec:
        """In the package's folder, with its runtime and the environment's variables and secrets, and the reason."""
        world, manifest, folder = self._world, manifest_of(self._world, release), package_folder(self._world, release)
        variables = {
            **variables_of(world, release, manifest, own_image=False),
            "PENSTOCK_REASON": release.reason or "",
        }
        stem = self._stem(release)
        spec = ProcessSpec(
            id=_process(release),
            command=str(_rules(release).notify),
            workspace=folder,
            variables=runtime_variables(world, manifest, folder, variables),
            log=stem.with_suffix(".log"),
            record=stem.with_suffix(".record"),
            contain=world.contain,
            secrets=tuple(release.spec.get("secrets", ())),
        )
        return in_image(spec, image_of(world, manifest))


def _rules(release: Release) -> WatchRules:
    return WatchRules.model_validate(release.spec["watch"])


def _is_news(before: Watch, after: Watch) -> bool:
    """Whether a look is worth a write."""
    same = (before.arm, before.unknown, before.ended) == (after.arm, after.unknown, after.ended)
    return not same or after.seen - before.seen >= REST


def _round(release: Release) -> int:
    """How often a release was given its place back; it is watched anew each time."""
    return int((release.watch or {}).get("round", 0))


def _nth(release: Release) -> str:
    return f"-{_round(release) + 1}" if _round(release) else ""


def _process(release: Release) -> str:
    """What the runner knows the process of a release's notice by."""
    return f"release-{release.id}/notify{_nth(release)}"
