"""Who starts next: capacity, fairness between runs, longest remaining path first, nobody passed over for ever.

Pure decisions: no clock, no tasks. `turns.py` beside it lets asyncio tasks wait for them. `docs/scheduling.md` says the
rules in words. A grant costs the number of different needs that wait, times a logarithm: no list of steps or runs is
looked through.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.errors import EngineError

PATIENCE = 64
"""So many others may start before the first one, where it does not fit; then room is kept for it."""

Key = tuple[int, str]
"""A run and one of its steps; a release, whose number stands below 0, and its replicas. Replicas do not end by
themselves: nobody waits for what they hold."""

MICRO = 1_000_000
"""Processors are counted in millionths: whole numbers, so that nothing is gained or lost by adding them up."""

_UNKNOWN = 1 << 80
"""Bytes of memory where a home does not know how many it has."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator: its index as CUDA_VISIBLE_DEVICES counts, and its kind (`a100`), or an empty text."""

    index: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a home may use at once: processors, bytes of memory, accelerators."""

    cpu: float
    memory: int = 0
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """What one step holds while it runs; accelerators are counted and exclusive, of one kind where it is named."""

    cpu: float = 1.0
    memory: int = 0
    gpus: int = 0
    gpu_kind: str | None = None


def why_never(need: Need, capacity: Capacity) -> str | None:
    """Why a need can never fit, in words, or None where it can. Memory 0 of a capacity means: not known."""
    if _micro(need.cpu) > _micro(capacity.cpu):
        return f"asks for {need.cpu:g} processors, and this home has {capacity.cpu:g}"
    if capacity.memory and need.memory > capacity.memory:
        return f"asks for {need.memory / 2**30:.1f} GiB of memory, and this home has {capacity.memory / 2**30:.1f}"
    have = _suitable(need, capacity.gpus)
    if need.gpus > have:
        kind = f" of kind {need.gpu_kind}" if need.gpu_kind else ""
        return f"asks for {need.gpus} GPUs{kind}, and this home has {have}"
    return None


def beyond(need: Need, held: Need, gpus: Iterable[Gpu]) -> Need:
    """What a need takes beyond what is held, these accelerators among it, where both are not used at once.

    What is held and what this gives are together the least that either of the two needs fits in.
    """
    return Need(
        max(0, _micro(need.cpu) - _micro(held.cpu)) / MICRO,
        max(0, need.memory - held.memory),
        max(0, need.gpus - _suitable(need, gpus)),
        need.gpu_kind,
    )


def _micro(cpu: float) -> int:
    return round(cpu * MICRO)


def _suitable(need: Need, gpus: Iterable[Gpu]) -> int:
    """How many of these a need may use."""
    return sum(need.gpu_kind in {None, g.kind} for g in gpus)


@dataclass(frozen=True, slots=True)
class Grant:
    """A step may start now, on these accelerators."""

    key: Key
    gpus: tuple[int, ...] = ()


class _Room:
    """What is free. It may be less than nothing where steps were found that run already."""

    def __init__(self, capacity: Capacity) -> None:
        self.cpu = _micro(capacity.cpu)
        self.memory = capacity.memory or _UNKNOWN
        self.gpus = list(capacity.gpus)

    def fits(self, need: Need) -> bool:
        if _micro(need.cpu) > self.cpu or need.memory > self.memory:
            return False
        return not need.gpus or need.gpus <= _suitable(need, self.gpus)

    def lessen(self, need: Need, gpus: tuple[Gpu, ...] = ()) -> None:
        self.cpu -= _micro(need.cpu)
        self.memory -= need.memory
        if gpus:
            self.gpus = [g for g in self.gpus if g not in gpus]

    def widen(self, need: Need, gpus: tuple[Gpu, ...]) -> None:
        self.cpu += _micro(need.cpu)
        self.memory += need.memory
        if gpus:
            self.gpus = sorted({*self.gpus, *gpus}, key=_index)


def _index(gpu: Gpu) -> int:
    return gpu.index


Place = tuple[float, int, str]
"""A step in its queue: minus its priority, when it asked, its name."""

Rank = tuple[float, int, int]
"""A run among the others: its share of the home, when it was served last, its number."""


@dataclass(slots=True, eq=False)
class _Queue:
    """The waiting steps of one run with one need, first to last."""

    run: "_Run"
    need: Need
    places: list[Place] = field(default_factory=list)
    passed_over: int = 0

    @property
    def first(self) -> Key:
        return (self.run.number, self.places[0][2])


@dataclass(slots=True, eq=False)
class _Run:
    """What a run holds, and its queues that are not empty."""

    number: int
    served: int
    cpu: int = 0
    memory: int = 0
    gpus: int = 0
    held: int = 0
    rank: Rank = (0.0, 0, 0)
    queues: dict[Need, _Queue] = field(default_factory=dict)

    def hold(self, need: Need, gpus: int, sign: int = 1) -> None:
        self.cpu += sign * _micro(need.cpu)
        self.memory += sign * need.memory
        self.gpus += sign * gpus
        self.held += sign


@dataclass(frozen=True, slots=True)
class _Held:
    need: Need
    gpus: tuple[Gpu, ...]
    since: int


class Schedule:
    """The waiting and the running of one home. Every key waits or runs at most once at a time.

    The run that holds the least goes first, by the resource of which it holds most; among equals the one that was
    served longest ago; within a run the longest path. What does not fit is passed over. Where the first one was passed
    over PATIENCE times, room is kept for it: what starts from then on must leave enough for it beside, so that it
    starts when what ran before has ended, at the latest. What does not fit beside the replicas has no turn to be kept.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._room = _Room(capacity)
        self._lasting = _Room(capacity)
        self._runs: dict[int, _Run] = {}
        self._order: list[Rank] = []
        self._lines: dict[Need, list[Rank]] = {}
        self._waiting: dict[Key, tuple[_Queue, Place]] = {}
        self._held: dict[Key, _Held] = {}
        self._impatient: dict[_Queue, None] = {}
        self._kept: _Queue | None = None
        self._beside = _Room(capacity)
        self._mark = 0
        self._count = 0

    @property
    def held(self) -> Mapping[Key, tuple[Need, tuple[Gpu, ...]]]:
        """What runs now, with what it holds."""
        return {key: (held.need, held.gpus) for key, held in self._held.items()}

    @property
    def waiting(self) -> Iterable[Key]:
        return self._waiting.keys()

    @property
    def needs(self) -> Iterable[Need]:
        """The different needs of those that wait."""
        return self._lines.keys()

    @property
    def kept_for(self) -> Key | None:
        """The step for which room is kept, or None."""
        return self._kept.first if self._kept is not None else None

    def holds(self, key: Key) -> bool:
        """Whether a step holds its share now."""
        return key in self._held

    def left(self, ended: Collection[Key] = ()) -> tuple[float, int | None, tuple[Gpu, ...]]:
        """The processors, bytes of memory (None: nobody knows) and accelerators that nobody holds, once these ended."""
        room = self._without(ended)
        return room.cpu / MICRO, room.memory if self._capacity.memory else None, tuple(room.gpus)

    def would_fit(self, need: Need, ended: Collection[Key] = ()) -> bool:
        """Whether a need fits once these have ended."""
        return self._without(ended).fits(need)

    def _without(self, ended: Collection[Key]) -> _Room:
        room = _Room(self._capacity)
        for key, held in self._held.items():
            if key not in ended:
                room.lessen(held.need, held.gpus)
        return room

    # --- what happens

    def ask(self, key: Key, need: Need, priority: float = 0.0) -> None:
        """A step is ready; a higher priority (seconds of its longest remaining path) starts earlier in its run.

        Raises ValueError for one that waits or runs already, EngineError for one that can never fit.
        """
        self._refuse_known(key)
        if need not in self._lines and (never := why_never(need, self._capacity)):
            raise EngineError(f"step {key[1]} {never}: ask for less, or give this home more")
        run = self._run(key[0])
        queue = run.queues.get(need) or self._open(run, need)
        place = (-priority, self._next_number(), key[1])
        insort(queue.places, place)
        self._waiting[key] = (queue, place)

    def withdraw(self, key: Key) -> None:
        """A step waits no more (its run was stopped); one that does not wait is nothing to withdraw."""
        found = self._waiting.pop(key, None)
        if found is not None:
            self._leave(*found)
            self._keep_room()
            self._forget(found[0].run)

    def take(self, key: Key, need: Need, gpus: Iterable[int] = ()) -> None:
        """A step runs already (found again after a restart): it holds its share whether that fits or not.

        Raises ValueError for one that waits or runs already.
        """
        self._refuse_known(key)
        known = frozenset(gpus)
        chosen = tuple(g for g in self._capacity.gpus if g.index in known)
        self._hold(key, need, chosen or self._choose(need))

    def release(self, key: Key) -> None:
        """A step has ended. Raises KeyError for one that holds nothing."""
        held = self._held.pop(key)
        free = tuple(g for g in held.gpus if not self._is_used(g))
        self._room.widen(held.need, free)
        if held.since > self._mark or _lasts(key):
            self._beside.widen(held.need, free)
        if _lasts(key):
            self._lasting.widen(held.need, free)
            self._keep_room()
        run = self._runs[key[0]]
        run.hold(held.need, len(held.gpus), -1)
        self._rank(run)
        self._forget(run)

    def exchange(self, shares: Mapping[Key, tuple[Need, tuple[int, ...]] | None]) -> None:
        """What holds something holds that from now on, on these accelerators, or nothing; nobody starts in between.

        Raises KeyError for one that holds nothing.
        """
        for key in shares:
            self.release(key)
        for key, share in shares.items():
            if share is not None:
                self.take(key, *share)

    def grant(self) -> list[Grant]:
        """All that may start now, in the order in which it may."""
        granted = []
        while (queue := self._next()) is not None:
            key = queue.first
            self._leave(*self._waiting.pop(key))
            queue.run.served = self._next_number()
            queue.passed_over = 0
            gpus = self._choose(queue.need)
            self._hold(key, queue.need, gpus)
            self._impatient.pop(queue, None)
            self._keep_room()
            granted.append(Grant(key, tuple(g.index for g in gpus)))
        return granted

    # --- who is next

    def _next(self) -> _Queue | None:
        if self._kept is not None and self._room.fits(self._kept.need):
            return self._kept
        best: tuple[Rank, Place, _Queue] | None = None
        for need, line in self._lines.items():
            if (best is None or line[0] <= best[0]) and self._room.fits(need) and self._leaves_enough(need):
                queue = self._runs[line[0][2]].queues[need]
                found = (line[0], queue.places[0], queue)
                best = found if best is None else min(best, found)
        if best is None:
            return None
        self._pass_over(best[2])
        return best[2]

    def _leaves_enough(self, need: Need) -> bool:
        """Whether the one for which room is kept would still fit beside, once what ran before has ended."""
        if self._kept is None:
            return True
        beside, kept = self._beside, self._kept.need
        if _micro(need.cpu) > beside.cpu or need.memory > beside.memory:
            return False
        if not need.gpus or not kept.gpus:
            return True
        chosen = self._choose(need)
        return kept.gpus <= _suitable(kept, (g for g in beside.gpus if g not in chosen))

    def _pass_over(self, chosen: _Queue) -> None:
        """Another one starts before the one whose turn it is: that counts."""
        first = self._first()
        if first is not None and first is not chosen and first not in self._impatient:
            first.passed_over += 1
            if first.passed_over >= PATIENCE:
                self._impatient[first] = None
                self._keep_room()

    def _first(self) -> _Queue | None:
        """The one whose turn it is: the first that fits beside the replicas."""
        for rank in self._order:
            queues = [q for q in self._runs[rank[2]].queues.values() if self._lasting.fits(q.need)]
            if queues:
                return min(queues, key=_first_place)
        return None

    def _keep_room(self) -> None:
        """Room is kept for the one that lost patience first; what runs already does not count against it, for it ends.

        That is not true of replicas: room that they hold cannot be kept.
        """
        kept = next((q for q in self._impatient if self._lasting.fits(q.need)), None)
        if kept is self._kept:
            return
        lasting = [held for key, held in self._held.items() if _lasts(key)]
        self._kept, self._mark, self._beside = kept, self._count, _Room(self._capacity)
        for held in lasting:
            self._beside.lessen(held.need, held.gpus)
        if kept is not None:
            self._beside.lessen(kept.need)

    def _choose(self, need: Need) -> tuple[Gpu, ...]:
        """Free accelerators for a need; one that takes any kind leaves the kinds that others wait for."""
        if not need.gpus:
            return ()
        kept = None if self._kept is None else self._kept.need.gpu_kind
        asked = {n.gpu_kind for n in self._lines if n.gpus and n is not need}
        suitable = [g for g in self._room.gpus if need.gpu_kind in {None, g.kind}]
        suitable.sort(key=lambda g: (g.kind == kept, g.kind in asked, g.index))
        return tuple(suitable[: need.gpus])

    # --- the books

    def _refuse_known(self, key: Key) -> None:
        if key in self._waiting or key in self._held:
            raise ValueError(f"step {key[1]} of run {key[0]} waits or runs already")

    def _next_number(self) -> int:
        self._count += 1
        return self._count

    def _hold(self, key: Key, need: Need, gpus: tuple[Gpu, ...]) -> None:
        self._held[key] = _Held(need, gpus, self._next_number())
        self._room.lessen(need, gpus)
        self._beside.lessen(need, gpus)
        if _lasts(key):
            self._lasting.lessen(need, gpus)
            self._keep_room()
        run = self._run(key[0])
        run.hold(need, len(gpus))
        self._rank(run)

    def _is_used(self, gpu: Gpu) -> bool:
        """Whether another step holds it too: two that were found so after a restart."""
        return any(gpu in held.gpus for held in self._held.values())

    def _run(self, number: int) -> _Run:
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = _Run(number, self._next_number())
            run.rank = self._rank_of(run)
        return run

    def _open(self, run: _Run, need: Need) -> _Queue:
        """A queue for the first waiting step of a run with this need."""
        if not run.queues:
            insort(self._order, run.rank)
        insort(self._lines.setdefault(need, []), run.rank)
        queue = run.queues[need] = _Queue(run, need)
        return queue

    def _leave(self, queue: _Queue, place: Place) -> None:
        """One waits no more; an empty queue is no more."""
        del queue.places[bisect_left(queue.places, place)]
        if queue.places:
            return
        run, line = queue.run, self._lines[queue.need]
        del run.queues[queue.need]
        del line[bisect_left(line, run.rank)]
        if not line:
            del self._lines[queue.need]
        if not run.queues:
            del self._order[bisect_left(self._order, run.rank)]
        self._impatient.pop(queue, None)

    def _forget(self, run: _Run) -> None:
        if not run.queues and not run.held:
            self._runs.pop(run.number, None)

    def _rank_of(self, run: _Run) -> Rank:
        whole = self._capacity
        share = max(
            run.cpu / (_micro(whole.cpu) or 1),
            run.memory / (whole.memory or _UNKNOWN),
            run.gpus / (len(whole.gpus) or 1),
        )
        return (share, run.served, run.number)

    def _rank(self, run: _Run) -> None:
        """What the run holds has changed: it stands elsewhere among the others."""
        before, run.rank = run.rank, self._rank_of(run)
        for line in (self._order, *(self._lines[need] for need in run.queues)) if run.queues else ():
            del line[bisect_left(line, before)]
            insort(line, run.rank)


def _lasts(key: Key) -> bool:
    """Whether what a key holds does not end by itself."""
    return key[0] < 0


def _first_place(queue: _Queue) -> Place:
    return queue.places[0]
