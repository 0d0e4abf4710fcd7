"""Releases in time: start, healthy, join the router, switch, settle, drain, keep warm.

The store is written before the router: where traffic goes is derived from the releases' statuses alone, so a
coordinator that dies at any point is followed by one that derives the same routes and goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from penstock.approvals import Pinned, settings_digest
from penstock.engine.approving import insist, use
from penstock.engine.hooking import HookError, Hooks
from penstock.engine.installing import StoppedRollout, Stopping, rules_of
from penstock.engine.migrating import Migrating, MigrationError
from penstock.engine.probing import Prober
from penstock.engine.replicas import Replicas, UnhealthyError
from penstock.engine.rolling import Rolling
from penstock.engine.routing import Routing
from penstock.engine.serving import HEALTH_INTERVAL
from penstock.engine.switching import Switching
from penstock.engine.turns import Turns
from penstock.engine.upkeep import Upkeep, Verbs
from penstock.engine.watching import Watching
from penstock.engine.world import World
from penstock.errors import EngineError, PenstockError, RouteError, StateError
from penstock.migrations import Migration, why_not_back
from penstock.releases import MOVING, ReleaseStatus, is_hooked
from penstock.rollouts import Asked, said, terms_of
from penstock.store.contract import Release
from penstock.watches import WATCH


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be released: a package of a version, where, and for which request.

    `spec` holds port, number of replicas, variables and what of the person's environment is passed on; `force` has a
    package go back across a migration that is marked `contract`. `approval` is the approval that it takes, by number:
    0 where it takes one that nobody gave, None where it takes none.
    """

    project: str
    environment: str
    generation: int
    request: int
    run: int
    version: str
    package: str
    spec: Mapping[str, Any]
    actor: str
    force: bool = False
    approval: int | None = None

    def pinned(self, world: World) -> Pinned:
        """What is approved where this is."""
        before = world.store.releases.newest_number(self.project, self.environment, self.request)
        return Pinned(self.environment, self.package, self.version, settings_digest(self.spec), before)


INTERRUPTED = "interrupted"
"""The reason of what `resume` begins anew."""
_LATE = "a newer release was there first"
_REFUSED = frozenset({ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK})


class ProbeError(UnhealthyError):
    """A release that the recorded requests speak against, or that could not be asked them."""


class FrozenError(StateError):
    """An environment that takes no release at the moment: who froze it, and why."""


class Delivery:
    """All releases of a home. One rollout at a time per environment."""

    def __init__(self, world: World, turns: Turns | None = None) -> None:
        self._world = world
        self._releases = world.store.releases
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._recovered = asyncio.Event()
        self._recovered.set()
        self._routing = Routing(world)
        self._replicas = Replicas(world, self._routing, turns)
        self._migrating = Migrating(world)
        self._hooks = Hooks(world)
        self._switching = Switching(world, self._routing, self._replicas)
        self._prober = Prober(world)
        self._rolling = Rolling(world, self._routing, self._replicas)
        self._watching = Watching(world, self._break)
        self._claims: dict[tuple[str, str], list[Wanted]] = {}
        self._halted: dict[int, str] = {}
        self._broken: set[int] = set()
        verbs = Verbs(self._turn, lambda release: self._judge(release, lambda: None), self._drop)
        self._upkeep = Upkeep(world, self._routing, self._replicas, self._switching, self._hooks, verbs)

    @property
    def watches(self) -> list[asyncio.Task[None]]:
        """What goes on beside the verbs, to be canceled by who leaves."""
        return [*self._migrating.watches, *self._upkeep.tasks, *self._watching.tasks]

    def _turn(self, project: str, environment: str) -> asyncio.Lock:
        return self._turns.setdefault((project, environment), asyncio.Lock())

    # --- verbs

    async def release(self, wanted: Wanted, stopping: Stopping) -> Release:
        """Bring a package to an environment; returns the release as it ended: serving, or rejected with a reason.

        One that serves already is returned as it is. A release that an earlier coordinator began is gone on with.
        Raises StoppedRollout where it is stopped before its turn has come.
        """
        await self._recovered.wait()
        place = (wanted.project, wanted.environment)
        self._claims.setdefault(place, []).append(wanted)
        try:
            async with self._queue(wanted, stopping):
                return await self._release(wanted, stopping)
        finally:
            self._claims[place].remove(wanted)

    @asynccontextmanager
    async def _queue(self, wanted: Wanted, stopping: Stopping) -> AsyncIterator[None]:
        """The turn of an environment. Who is stopped waits only for what is under way in its own name."""
        lock = self._turn(wanted.project, wanted.environment)
        acquiring = asyncio.ensure_future(lock.acquire())
        try:
            while not (await asyncio.wait({acquiring}, timeout=HEALTH_INTERVAL))[0]:
                why = stopping()
                if why is not None and not self._halt(self._moving(wanted.request), why):
                    raise StoppedRollout
            yield
        finally:
            if not acquiring.cancel() and not acquiring.cancelled():
                lock.release()

    def _moving(self, request: int) -> list[Release]:
        """What a request has on the way."""
        return [r for r in self._releases.of() if r.request == request and r.status in MOVING]

    def _halt(self, releases: Sequence[Release], why: str) -> bool:
        """Have rollouts end as soon as they can, with the reason; whether there is any."""
        for release in releases:
            self._halted.setdefault(release.id, why)
            self._rolling.wake(release.id)
        return bool(releases)

    async def _release(self, wanted: Wanted, stopping: Stopping) -> Release:
        serving = self._releases.serving(wanted.project, wanted.environment)
        if serving is not None and self._is_same(serving, wanted):
            with self._world.store.transaction(durable=True):
                self._releases.advance(wanted.project, wanted.environment, wanted.generation)
            await self._drop_begun(serving, wanted.request, f"release {serving.id} serves the same")
            return serving
        await self._refuse_frozen(wanted)
        release = self._begun(wanted)
        if release.status not in MOVING:
            return release
        if release.status is not ReleaseStatus.CANARY and not self._switching.is_newest(release):
            await self._end(release, _LATE)
            return self._releases.get(release.id)
        try:
            return await self._roll(release, stopping, force=wanted.force)
        finally:
            self._routing.joining.discard(release.id)
            self._halted.pop(release.id, None)

    def _why_stop(self, release: Release, stopping: Stopping) -> Stopping:
        """Why a rollout is to end: its command says so, a verb, or a newer release that waits for its turn."""

        def why() -> str | None:
            place = (release.project, release.environment)
            # What is frozen takes no newer release either, so nobody gives way to one.
            claims = [] if self._releases.frozen(*place) else self._claims.get(place, [])
            newer = any(c.generation > release.generation and not _alike(release, c) for c in claims)
            return stopping() or self._halted.get(release.id) or ("a newer release takes its place" if newer else None)

        return why

    async def _refuse_frozen(self, wanted: Wanted) -> None:
        """Raise FrozenError where the environment takes no release; what an earlier coordinator began there ends."""
        frozen = self._releases.frozen(wanted.project, wanted.environment)
        if frozen is not None:
            reason = frozen.sentence(wanted.environment)
            await self._drop_begun(wanted, wanted.request, reason)
            raise FrozenError(reason)

    def serves(self, wanted: Wanted) -> bool:
        """Whether what is wanted serves already, so that nothing would be begun."""
        serving = self._releases.serving(wanted.project, wanted.environment)
        return serving is not None and self._is_same(serving, wanted)

    def _is_same(self, release: Release, wanted: Wanted) -> bool:
        """Whether a release is what is wanted, and lives."""
        return _alike(release, wanted) and (is_hooked(release.spec) or self._replicas.all_live(release))

    def _begun(self, wanted: Wanted) -> Release:
        """The release of this request that is on its way or has come to its end, else a new one."""
        own = [r for r in self._releases.of(wanted.project, wanted.environment) if r.request == wanted.request]
        for release in own:
            if release.status in MOVING:
                return release
        # What has served was taken back by a newer word: what comes after that is for the generation to refuse.
        refused = own and own[-1].status in _REFUSED and own[-1].since is None and own[-1].reason != INTERRUPTED
        if refused and own[-1].package == wanted.package:
            return own[-1]
        if wanted.approval is not None:
            insist(self._world, wanted.approval, wanted.pinned(self._world))
        with self._world.store.transaction(durable=True):
            if wanted.approval is not None:
                use(self._world.store, wanted.approval)
            values = asdict(wanted)
            del values["force"], values["approval"]
            return self._releases.add(values)

    async def wish(self, project: str, environment: str, wish: Asked) -> Release:
        """Promote or abort the rollout that is going on, by a person's word; returns the release as it ended."""
        await self._recovered.wait()
        found = [r for r in self._releases.of(project, environment) if r.status in MOVING]
        if not found:
            raise StateError(f"{environment} has no rollout to {wish.wish}: penstock status shows what serves")
        release = found[-1]
        if release.status is ReleaseStatus.CANARY:
            self._rolling.ask(release.id, wish)
        elif wish.wish == "promote":
            raise StateError(f"{release.version} is not healthy yet, so it gets no traffic: ask again when it is")
        else:
            self._halt([release], said(wish))
        async with self._turn(project, environment):
            release = self._releases.get(release.id)
            if release.status is ReleaseStatus.CANARY:
                return await self._judge(release, lambda: None)
            if release.status in MOVING:
                await self._drop_begun(release, release.request, said(wish))
            return self._releases.get(release.id)

    async def rollback(
        self,
        project: str,
        environment: str,
        request: int,
        actor: str,
        *,
        force: bool = False,
        down: bool = False,
        why: str | None = None,
        only: int | None = None,
    ) -> Release:
        """Give the traffic back to the release that served before; without a rebuild, and without a start if warm.

        With `only` it is refused where another release than that one serves by then. Without, what is on
        its way without traffic ends for it. Whoever waited while an earlier
        rollback was finished has what they asked for; one that an earlier coordinator switched is only finished.

        Going back across a migration that is marked `contract` takes `force`, or `down`: then the way back of each
        migration that is crossed runs too, before the switch where older code could not work otherwise, else after it.
        """
        await self._recovered.wait()
        before = self._releases.serving(project, environment)
        if before is None or request not in {*self._upkeep.answered, before.generation} or only is not None:
            self._look_back(project, environment, force=force, down=down)
            if only is None:
                self._make_way(project, environment, actor)
        async with self._turn(project, environment):
            serving = self._releases.serving(project, environment)
            target = self._earlier(project, environment)
            if only is None and serving is not None and request in {*self._upkeep.answered, serving.generation}:
                return await self._finish_rollback(serving, request, actor, down=down)
            wanted = only if only is not None or before is None else before.id
            if serving is not None and serving.id != (wanted or serving.id):
                raise StateError(f"another release serves {environment} by now: penstock status shows which")
            if serving is None or target is None:
                raise StateError(f"{environment} has no earlier release to go back to")
            reason = f"rolled back to {target.version} by {actor}{f': {why}' if why else ''}"
            crossing = self._migrating.crossing(target)
            self._refuse_rollback(environment, crossing, force=force, down=down)
            first = down and any(m.contract for m in crossing)
            warm = {r.id for r in self._releases.replicas(target.id)}
            try:
                if first:
                    await self._migrating.down(crossing, request, actor)
                alone = not warm and self._switching.is_alone(serving)
                try:
                    await self._go_back(serving, target, request, reason, alone=alone)
                except (PenstockError, OSError):
                    if first:  # what serves on needs its schema back
                        await self._migrating.again(crossing, request, actor)
                    raise
                if not await self._switching.switch(target, request, fate="roll_back", reason=reason):
                    raise StateError(f"{environment} was given to a newer command meanwhile: see penstock status")
                return await self._finish_rollback(target, request, actor, down=down, cold=alone)
            finally:
                self._routing.joining.discard(target.id)
                if self._releases.get(target.id).status is ReleaseStatus.RETIRED and not warm:
                    await self._replicas.end(target.id)  # it was started for this, and does not serve
                self._releases.note(target.id, phase=None)

    def _look_back(self, project: str, environment: str, *, force: bool, down: bool) -> None:
        """Raise StateError for a rollback that is refused anyway, before anything ends for it."""
        for release in self._releases.of(project, environment):
            if release.status is ReleaseStatus.CANARY:
                way = f"penstock abort {environment} ends it, and what served before has all traffic again"
                raise StateError(f"{environment} is in the rollout of {release.version}: {way}")
        target = self._earlier(project, environment, draining=True)
        if target is None:
            raise StateError(f"{environment} has no earlier release to go back to")
        self._refuse_rollback(environment, self._migrating.crossing(target), force=force, down=down)

    def _make_way(self, project: str, environment: str, actor: str) -> None:
        """End what is being brought without traffic: a rollback is newer, so it would be refused anyway."""
        claimed = {c.request for c in self._claims.get((project, environment), ())}
        moving = [r for r in self._releases.of(project, environment) if r.status in MOVING and r.request in claimed]
        self._halt(moving, f"{actor} rolled {environment} back meanwhile")

    def _earlier(self, project: str, environment: str, *, draining: bool = False) -> Release | None:
        """The release that served before the one that serves now; `draining`: also one that will have drained."""
        found = [r for r in self._releases.of(project, environment) if r.since]
        served = [r for r in found if r.status is ReleaseStatus.RETIRED]
        if draining:
            served += [r for r in found if r.status is ReleaseStatus.DRAINING and r.fate == "retire"]
        return max(served, key=lambda r: (r.since or 0.0, r.id), default=None)

    async def _finish_rollback(
        self, target: Release, request: int, actor: str, *, down: bool, cold: bool = True
    ) -> Release:
        """What follows the switch: where two releases have no room the old one starts now, and migrations are undone.

        May be done again by the next coordinator.
        """
        if cold and not is_hooked(target.spec):
            try:
                await self._replicas.bring_up(target, lambda: None)
            except (PenstockError, OSError) as error:
                raise StateError(f"{target.version} has its place back, and does not serve: {error}") from error
            self._routing.joining.discard(target.id)
            self._releases.note(target.id, phase=None)
        if down:
            await self._migrating.down(self._migrating.crossing(target), request, actor)
        return self._releases.get(target.id)

    async def _break(self, release: Release, why: str) -> None:
        """Go back from a release that broke its watch, while it serves."""
        place = (release.project, release.environment)
        if release.id not in self._broken:
            self._broken.add(release.id)  # what was refused once and is tried again ends nothing that comes meanwhile
            self._look_back(*place, force=False, down=False)
            self._make_way(*place, WATCH)
        await self.rollback(*place, self._releases.generation(*place), WATCH, why=why, only=release.id)

    async def _go_back(self, serving: Release, target: Release, request: int, reason: str, *, alone: bool) -> None:
        """Have a release that served before ready to serve again; `alone`: when the one that serves has ended."""
        if alone:
            await self._replicas.take_over(target, serving)
        elif is_hooked(target.spec):
            await self._hooks.roll_back(serving, target, request, reason)
        else:
            await self._replicas.bring_up(target, lambda: None)

    def _refuse_rollback(self, environment: str, crossing: list[Migration], *, force: bool, down: bool) -> None:
        if down:
            self._migrating.insist_on_way_down(crossing)
            return
        way = f"penstock rollback {environment} --migrate-down undoes it first where the file names a way, --force "
        reason = why_not_back(environment, crossing, f"{way}goes back all the same")
        if reason is not None and not force:
            raise StateError(reason)

    async def stop(self, project: str | None, environment: str | None) -> list[str]:
        """End what a home, a project or an environment serves; returns what was stopped, in words.

        A rollout that is going on ends first. What a command deployed elsewhere goes on.
        """
        found = {(r.project, r.environment) for r in self._releases.of(project, environment)}
        stopped = [line for place in sorted(found) for line in await self._stop_one(*place)]
        with suppress(RouteError):  # what is stopped is not reached any more, whatever another environment lacks
            await self._routing.apply()
        return stopped

    async def _stop_one(self, project: str, environment: str) -> list[str]:
        self._halt([r for r in self._releases.of(project, environment) if r.status in MOVING], "stopped")
        async with self._turn(project, environment):
            ended = []
            await self._migrating.end(project, environment)
            for release in self._releases.of(project, environment):
                if is_hooked(release.spec):
                    await self._stop_hooks(release)
                elif release.status is ReleaseStatus.SERVING:
                    self._switching.move(release.id, "stop", reason="stopped")
                    ended.append(f"{environment} {release.version}")
                elif release.status is ReleaseStatus.CANARY:
                    self._switching.move(release.id, "withdraw", fate="roll_back", reason="stopped")
                    self._switching.move(release.id, "roll_back", reason="stopped")
                elif release.status in MOVING:
                    self._switching.move(release.id, "reject", reason="stopped")
                elif release.status is ReleaseStatus.DRAINING:
                    self._switching.move(release.id, release.fate or "retire", reason=release.reason)
            with suppress(RouteError):
                await self._routing.apply()
            for release in self._releases.of(project, environment):
                await self._watching.end(release)
                if "probe" in release.spec:
                    await self._prober.end(release)
                await self._replicas.end(release.id)
            return ended

    async def _stop_hooks(self, release: Release) -> None:
        """End what is on its way to somewhere else; what is there already is not ours to end."""
        if release.status in MOVING:
            await self._end(release, "stopped")
        else:
            await self._hooks.end(release)

    async def give_up(self, request: int) -> None:
        """What a canceled request began to release, perhaps under an earlier coordinator, is ended and rejected."""
        moving = self._moving(request)
        self._halt(moving, "canceled")
        for release in moving:
            async with self._turn(release.project, release.environment):
                await self._drop_begun(release, request, "canceled")

    async def _drop_begun(self, beside: Release | Wanted, request: int, reason: str) -> None:
        """End and reject what a request began to release in an environment, whose turn the caller has."""
        for release in self._releases.of(beside.project, beside.environment):
            if release.request != request or release.status not in MOVING:
                continue
            if release.status is ReleaseStatus.CANARY:
                await self._switching.withdraw(release, reason)
            else:
                await self._end(release, reason)

    async def _drop(self, release: Release, reason: str) -> None:
        await self._drop_begun(release, release.request, reason)

    def hold_live(self) -> None:
        """What lives holds its share of the home again, before anything else starts."""
        self._replicas.hold_live()

    async def recover(self) -> None:
        """After a start: what should serve serves again, drains are finished, the router has its state.

        The verbs wait until what should serve serves, and by environment for its drain.
        """
        self._recovered.clear()
        try:
            self._migrating.recover()
            draining = await self._upkeep.recover()
        finally:
            self._watching.recover()
            self._upkeep.begin()
            self._recovered.set()
        await draining

    # --- one rollout

    async def _roll(self, release: Release, stopping: Stopping, *, force: bool) -> Release:
        if release.status is ReleaseStatus.CANARY:
            return await self._judge(release, stopping)
        why = self._why_stop(release, stopping)
        try:
            self._refuse_way_back(release, force=force)
            self._replicas.refuse_taken_port(release)
            self._routing.insist_on_certificate(release)
            await self._replicas.reserve(release, why)
            await self._migrating.up(release, lambda: stopping() or self._halted.get(release.id))
            await self._switching.step_aside(release)
            await self._bring_up(release, stopping)
            await self._probe(release, why)
        except (UnhealthyError, MigrationError, HookError, EngineError) as error:
            route = f"{release.project}-{release.environment}"
            await self._end(release, str(error).replace(route, release.environment))
            return self._releases.get(release.id)
        except StoppedRollout:
            await self._stopped(release, why() or INTERRUPTED)
            return self._releases.get(release.id)
        except Exception as error:  # whatever it is: what nobody brings any further must not live on
            await self._end(release, str(error))
            raise
        return await self._take_over(self._releases.get(release.id), stopping)

    async def _bring_up(self, release: Release, stopping: Stopping) -> None:
        """Have a release ready to serve: by its replicas, or where Penstock does not serve it by its own command.

        A newer release does not end that command, which may have changed half of its target.
        """
        why = self._why_stop(release, stopping)
        if is_hooked(release.spec):
            previous = self._releases.serving(release.project, release.environment)
            await self._hooks.deploy(release, previous, lambda: stopping() or self._halted.get(release.id), why)
        else:
            await self._replicas.bring_up(release, why)

    async def _probe(self, release: Release, stopping: Stopping) -> None:
        """Ask a healthy release the recorded requests. Raises ProbeError where it must not go on."""
        if "probe" not in release.spec:
            return
        if release.status is ReleaseStatus.STARTING:
            self._switching.move(release.id, "probe")
        self._releases.note(release.id, phase="probing")
        stable = self._releases.serving(release.project, release.environment)
        probed = await self._prober.probe(release, stable, stopping)
        before = self._releases.get(release.id).rollout or {}
        self._releases.note(release.id, rollout={**before, "probe": asdict(probed)})
        if probed.verdict != "pass":
            raise ProbeError(f"the probe: {probed.reason}")

    async def _stopped(self, release: Release, why: str) -> None:
        """What was interrupted goes on with `resume`; what was stopped for good is rejected."""
        if why != INTERRUPTED:
            await self._end(release, why)
            return
        await self._replicas.end(release.id)
        await self._switching.put_back(release)

    async def _take_over(self, release: Release, stopping: Stopping) -> Release:
        """What is healthy gets the traffic: all at once, or by widths that the evidence allows."""
        stable = self._releases.serving(release.project, release.environment)
        terms = terms_of(rules_of(release), "sticky" if stable is not None and "sticky" in stable.spec else "random")
        if stable is None or not terms.widths:
            if not await self._switching.switch(release, release.generation, fate="retire", reason=None):
                await self._end(release, _LATE)
            return self._releases.get(release.id)
        if not self._switching.is_newest(release):
            await self._end(release, _LATE)
            return self._releases.get(release.id)
        self._rolling.begin(release, stable, terms)
        self._routing.joining.discard(release.id)
        return await self._judge(self._releases.get(release.id), stopping)

    async def _judge(self, release: Release, stopping: Stopping) -> Release:
        """See a rollout to its end, and carry out how it ends."""
        try:
            move = await self._rolling.judge(release, self._why_stop(release, stopping))
        except Exception as error:  # whatever it is: what nobody judges any further must not keep traffic
            await self._switching.withdraw(release, f"it could not be judged any further: {error}")
            if not isinstance(error, PenstockError | OSError):
                raise
            return self._releases.get(release.id)
        if move.kind != "promote":
            await self._switching.withdraw(release, move.reason)
        elif not await self._switching.switch(release, release.generation, fate="retire", reason=None):
            await self._switching.withdraw(release, _LATE)
        return self._releases.get(release.id)

    async def _end(self, release: Release, reason: str) -> None:
        """End and reject what got no traffic; what made way for it serves again."""
        serving = self._releases.serving(release.project, release.environment)
        reason = await self._hooks.undo(release, serving, reason)
        if "probe" in release.spec:
            await self._prober.end(release)
        await self._replicas.end(release.id)
        try:
            await self._switching.put_back(release)
        except PenstockError as error:
            reason = f"{reason}; and what served before cannot be started again: {error}"
        await self._reject(release.id, reason)

    async def _reject(self, release: int, reason: str) -> None:
        self._routing.joining.discard(release)
        self._switching.move(release, "reject", reason=reason)
        self._replicas.settle()
        if self._routing.routes():
            with suppress(
                EngineError, OSError
            ):  # it got no traffic, so that may come later: upkeep tells and sees to it
                await self._routing.apply()

    def _refuse_way_back(self, release: Release, *, force: bool) -> None:
        way = f"penstock deploy {release.version} {release.environment} --force goes back all the same"
        reason = why_not_back(release.environment, self._migrating.crossing(release), way)
        if reason is not None and not force:
            raise MigrationError(reason)


def _alike(release: Release, wanted: Wanted) -> bool:
    """Whether a release is what is wanted; the person's own PATH and language make no other release."""
    both = [{k: v for k, v in spec.items() if k != "person"} for spec in (release.spec, wanted.spec)]
    return (release.version, release.package) == (wanted.version, wanted.package) and both[0] == both[1]
