"""Rollouts in traffic: a release gets its widths, the router's counters are looked at, the arithmetic decides.

What was decided is recorded before it is put in force: routes follow from the record, so a coordinator that dies
anywhere is followed by one that puts the same width in force and goes on judging.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from penstock.engine.calling import call
from penstock.engine.contracts import Counted
from penstock.engine.installing import Stopping, rules_of
from penstock.engine.querying import Questions
from penstock.engine.replicas import Replicas
from penstock.engine.routing import Routing
from penstock.engine.world import World
from penstock.errors import EngineError
from penstock.rollouts import (
    Asked,
    Event,
    Failed,
    Move,
    Observed,
    Rollout,
    Terms,
    advanced,
    begin,
    taken_up,
    written,
)
from penstock.store.contract import Release
from penstock.traffic import NOTHING, Increment, Reading, between

NOWHERE = -1
"""The width of a look while the router does not follow: no width's evidence, and no width's time."""
ILL = 3
"""Looks in a row at which no replica of a candidate is healthy: then it cannot go on."""
KEPT_MOVES = 50


class Rolling:
    """The rollouts of a home that are judged in traffic. The caller has the turn of the environment."""

    def __init__(self, world: World, routing: Routing, replicas: Replicas) -> None:
        self._world = world
        self._releases = world.store.releases
        self._routing = routing
        self._replicas = replicas
        self._wishes: dict[int, list[Asked]] = {}
        self._woken: dict[int, asyncio.Event] = {}

    def ask(self, release: int, wish: Asked) -> None:
        """A person's wish, for the next look, which comes at once."""
        self._wishes.setdefault(release, []).append(wish)
        self.wake(release)

    def wake(self, release: int) -> None:
        """Have the next look at a release come at once."""
        self._woken.setdefault(release, asyncio.Event()).set()

    def begin(self, release: Release, stable: Release, terms: Terms) -> None:
        """Record the first move of a release that is healthy and probed. The terms have widths."""
        state, move = begin(terms, self._world.clock.now())
        self._record(release.id, state, move, stable=stable.id, strategy=terms.strategy)

    async def judge(self, release: Release, stopping: Stopping) -> Move:
        """Look and decide until the rollout has ended; returns its last move, which the caller carries out."""
        caller, questions = self._caller(release), self._questions(release)
        try:
            return await self._until_ended(release, caller, questions, stopping)
        finally:
            await questions.end()
            if caller is not None:
                caller.cancel()
                await asyncio.gather(caller, return_exceptions=True)

    def _questions(self, release: Release) -> Questions:
        """The metrics that services of the person's own tell of a release."""
        rules = rules_of(release)
        names = {"release": str(release.id), "version": release.version, "environment": release.environment}
        secrets = tuple(release.spec.get("secrets", ()))
        return Questions(
            {} if rules is None else rules.metrics,
            names,
            lambda: self._world.secrets(release.project, secrets, release.environment),
        )

    def _caller(self, release: Release) -> asyncio.Task[None] | None:
        """Who asks the recorded requests where the file says that nobody else calls."""
        if (release.spec.get("rollout") or {}).get("traffic") != "probe":
            return None
        stable = self._releases.get(self._state(release.id)[1])
        port, tls = int(stable.spec["port"]), bool(stable.spec.get("tls"))
        return asyncio.create_task(call(self._world, release, port, tls=tls))

    async def _until_ended(
        self, release: Release, caller: asyncio.Task[None] | None, questions: Questions, stopping: Stopping
    ) -> Move:
        state, stable = self._state(release.id)
        watch = _Watch(self._world, self._routing, (release.id, stable), caller)
        in_force = False
        while state.ended is None:
            if not in_force:
                in_force = await self._put_in_force(release, watch)
                questions.begin()
            event = await self._event(release.id, stable, state, watch, stopping)
            if isinstance(event, Observed):
                event = replace(event, customs=questions.told()) if in_force else replace(event, width=NOWHERE)
            before = state
            state, move = advanced(state, event)
            if replace(state, seen=before.seen) != before:
                self._record(release.id, state, move)
            in_force = in_force and move.kind != "widen"
        self._wishes.pop(release.id, None)
        return state.ended

    async def _put_in_force(self, release: Release, watch: "_Watch") -> bool:
        """Have the router follow the width that was recorded; False where it cannot be reached now."""
        try:
            await self._routing.apply(release)
        except EngineError:
            return False
        await watch.begin_anew()
        return True

    def _state(self, release: int) -> tuple[Rollout, int]:
        found = self._releases.get(release).rollout or {}
        return taken_up(found["state"]), int(found["stable"])

    async def _event(self, release: int, stable: int, state: Rollout, watch: "_Watch", stopping: Stopping) -> Event:
        """What happens next: a stop, a wish, a failure of the candidate, or a look at the counters."""
        woken = self._woken.setdefault(release, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._world.look):
                await woken.wait()
        woken.clear()
        now = self._world.clock.now()
        why = stopping()
        if why is not None:
            return Failed(now, why)
        if self._wishes.get(release):
            return self._wishes[release].pop(0)
        failure = await self._failure(release, stable, watch)
        if failure is not None:
            return Failed(now, failure)
        return Observed(now, state.width, await watch.look())

    async def _failure(self, release: int, stable: int, watch: "_Watch") -> str | None:
        """Why the candidate cannot go on; what of both releases was killed with its shim is started again."""
        with suppress(EngineError):  # tried again at the next look, and no fault of the candidate
            await self._revive(stable)
        try:
            await self._revive(release)
        except EngineError as error:
            return str(error)
        crashed = self._replicas.crashed(self._releases.get(release))
        return crashed or await watch.fault()

    async def _revive(self, release: int) -> None:
        if not all(self._replicas.lives(r) for r in self._releases.replicas(release)):
            await self._replicas.start_again(self._releases.get(release))

    def _record(self, release: int, state: Rollout, move: Move, **more: Any) -> None:
        """The state after a look, and what was decided; a decision is on the disk before it is carried out."""
        found = self._releases.get(release)
        before: Mapping[str, Any] = found.rollout or {}
        moves = list(before.get("moves", ()))
        decided = move.kind != "hold"
        if decided:
            moves.append({"at": state.seen, "kind": move.kind, "width": move.width, "reason": move.reason})
        rollout = {**before, **more, "state": written(state), "move": asdict(move), "moves": moves[-KEPT_MOVES:]}
        with self._world.store.transaction(durable=decided):
            if move.kind == "widen":
                self._releases.move(release, "widen", rollout=rollout, reason=move.reason)
            else:
                self._releases.note(release, rollout=rollout)
            self._releases.note(release, phase=phase(state, move))


class _Watch:
    """The router's counters of a candidate and the stable release, look by look."""

    def __init__(
        self, world: World, routing: Routing, releases: tuple[int, int], caller: asyncio.Task[None] | None
    ) -> None:
        self._caller = caller
        self._routing = routing
        self._router = world.router
        self._names = (str(releases[0]), str(releases[1]))
        self._before: Reading | None = None
        self._ill = 0

    async def look(self) -> Increment | None:
        """What happened since the look before; None where that is not known. A router that is gone is started again."""
        before, self._before = self._before, await self._read()
        if self._before is None:
            with suppress(EngineError):  # then it does not run at the next look either, and no data is no success
                await self._routing.apply()
        return between(before, self._before)

    async def _read(self) -> Reading | None:
        """The counters now; None where the router does not run or does not answer."""
        try:
            counted = await self._router.counted(self._names)
        except EngineError:
            return None
        return _reading(counted, self._names)

    async def begin_anew(self) -> None:
        """Forget what happened until now: another width is in force."""
        self._before = None
        await self.look()

    async def fault(self) -> str | None:
        """Why the candidate cannot go on: it was not healthy at some looks in a row, or nobody can ask it."""
        if self._caller is not None and self._caller.done():
            return f"the recorded requests cannot be asked: {self._caller.exception()}"
        self._ill = 0 if self._before is None or await self._healthy() else self._ill + 1
        return "none of its replicas is healthy any more" if self._ill >= ILL else None

    async def _healthy(self) -> bool:
        """Whether any replica is healthy, as far as the router tells."""
        try:
            return await self._router.healthy(self._names[0]) > 0
        except EngineError:
            return True


def _reading(counted: Counted, names: tuple[str, str]) -> Reading | None:
    if not counted.epoch:
        return None
    canary, stable = (counted.arms.get(name, NOTHING) for name in names)
    return Reading(counted.epoch, canary, stable)


def phase(state: Rollout, move: Move) -> str:
    """Where a rollout stands, in a few words: strategy, width, requests so far, and how many more it takes."""
    what = f"{state.terms.strategy} {move.width / 100:g} %"
    seen = state.evidence.canary.requests
    if state.ended is not None or not seen:
        return what
    more = f", about {move.missing:,} more" if move.missing else ""
    return f"{what}: {seen:,} request{'s' if seen > 1 else ''}{more}"
