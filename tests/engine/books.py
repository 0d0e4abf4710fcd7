"""Independent books of a schedule: what it grants is reckoned anew, and every difference is a broken promise."""

from collections import Counter
from collections.abc import Iterator

from penstock.engine.scheduling import PATIENCE, Capacity, Gpu, Key, Need, Schedule

CAPACITY = Capacity(8, 16, (Gpu(0, "a100"), Gpu(1, "a100"), Gpu(2, "t4"), Gpu(3, "t4")))
NEEDS = (
    *[Need(0.5), Need(1.0), Need(1.0), Need(1.0), Need(2.0, 2), Need(1.0, 6), Need(1.0, 1, 1), Need(1.0, 0, 1, "a100")],
    *[Need(2.0, 4, 2, "t4"), Need(8.0), Need(1.0, 16), Need(4.0, 8, 4)],
)


class BrokenError(AssertionError):
    """A promise that did not hold."""


def expect(condition: object, promise: str) -> None:
    if not condition:
        raise BrokenError(promise)


class Books:
    """Asks the schedule, and reckons beside it what it may do; every difference is a broken promise."""

    def __init__(self, schedule: Schedule, seen: Counter[str]) -> None:
        self.schedule = schedule
        self._seen = seen
        self.waiting: dict[Key, tuple[Need, int]] = {}
        self.held: dict[Key, tuple[Need, tuple[int, ...]]] = {}
        self._needs: Counter[Need] = Counter()
        self._runs: Counter[int] = Counter()
        self._cards: dict[int, Key] = {}
        self._cpu = self._memory = self._grants = 0
        self._kept: Key | None = None
        self._before: set[Key] = set()
        self._beside: set[Key] = set()

    def ask(self, key: Key, need: Need, priority: float, steps: int) -> None:
        self.schedule.ask(key, need, priority)
        self._runs[key[0]] += 1
        self._needs[need] += 1
        bound = (PATIENCE + 1) * (len(self._runs) + steps + len(self.held))
        self.waiting[key] = (need, self._grants + bound)

    def withdraw(self, key: Key) -> None:
        self.schedule.withdraw(key)
        if key in self.waiting:
            self._unwait(key)

    def take(self, key: Key, need: Need, gpus: tuple[int, ...]) -> None:
        self.schedule.take(key, need, gpus)
        self._hold(key, need, gpus)

    def release(self, key: Key) -> None:
        self.schedule.release(key)
        need, gpus = self.held.pop(key)
        self._cpu -= round(2 * need.cpu)
        self._memory -= need.memory
        for gpu in gpus:
            del self._cards[gpu]
        self._before.discard(key)
        self._beside.discard(key)

    def grant(self) -> Iterator[tuple[Key, tuple[int, ...]]]:
        """What the schedule grants, checked."""
        found = [(grant.key, grant.gpus) for grant in self.schedule.grant()]
        for key, gpus in found:
            self._grants += 1
            need, bound = self._unwait(key)
            expect(self._grants <= bound, "nobody waits longer than its bound")
            self._hold(key, need, gpus)
        self._watch_kept(found)
        self._check_idle()
        return iter(found)

    def _unwait(self, key: Key) -> tuple[Need, int]:
        found = self.waiting.pop(key)
        for counter, name in ((self._needs, found[0]), (self._runs, key[0])):
            counter[name] -= 1  # type: ignore[index]
            if not counter[name]:  # type: ignore[index]
                del counter[name]
        return found

    def _hold(self, key: Key, need: Need, gpus: tuple[int, ...]) -> None:
        expect(key not in self.held, "nobody holds a share twice")
        self.held[key] = (need, gpus)
        self._cpu += round(2 * need.cpu)
        self._memory += need.memory
        expect(self._cpu <= 2 * CAPACITY.cpu and self._memory <= CAPACITY.memory, "never over capacity")
        expect(len(gpus) == need.gpus, "a step holds the accelerators that it asked for")
        for gpu in gpus:
            expect(gpu not in self._cards, "an accelerator belongs to one step at a time")
            expect(need.gpu_kind in {None, CAPACITY.gpus[gpu].kind}, "an accelerator is of the kind asked for")
            self._cards[gpu] = key

    def _watch_kept(self, found: list[tuple[Key, tuple[int, ...]]]) -> None:
        kept = self.schedule.kept_for
        started = {key for key, _ in found}
        self._seen["starts"] += len(found)
        if kept != self._kept:
            self._seen["room kept"] += kept is not None
            self._kept, self._before, self._beside = kept, set(self.held), set(started)
        else:
            self._beside |= started
        expect(kept is None or self._before, "the one for whom room is kept starts when those before have ended")

    def _check_idle(self) -> None:
        """Nobody waits who fits, but for the room that is kept."""
        free = [g for g in CAPACITY.gpus if g.index not in self._cards]
        for need in self._needs:
            cards = sum(need.gpu_kind in {None, g.kind} for g in free)
            fits = self._cpu + 2 * need.cpu <= 2 * CAPACITY.cpu and self._memory + need.memory <= CAPACITY.memory
            if fits and cards >= need.gpus:
                expect(self._is_barred(need), f"nothing is idle while something fits ({need})")
                self._seen["barred"] += 1

    def _is_barred(self, need: Need) -> bool:
        if self._kept is None:
            return False
        kept = self.waiting[self._kept][0]
        beside = [self.held[key][0] for key in self._beside if key in self.held]
        cpu = kept.cpu + need.cpu + sum(n.cpu for n in beside)
        memory = kept.memory + need.memory + sum(n.memory for n in beside)
        return cpu > CAPACITY.cpu or memory > CAPACITY.memory or bool(need.gpus and kept.gpus)

    def check_run(self, run: int) -> None:
        """After its end a run neither waits nor holds."""
        expect(not self._runs[run], "nothing of a run that ended waits")
        del self._runs[run]
        expect(all(key[0] != run for key in self.held), "nothing of a run that ended holds a share")
