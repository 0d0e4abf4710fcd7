"""Who starts next: capacity, fairness between runs, longest remaining path first, nobody passed over for ever.

Pure decisions: no clock, no tasks. `turns.py` beside it lets asyncio tasks wait for them.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PATIENCE = 64
"""So many others may start before one that waits and does not fit; then room is kept for it."""

Key = tuple[int, str]
"""A run and one of its steps."""


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
    if need.cpu > capacity.cpu:
        return f"asks for {need.cpu:g} processors, and this home has {capacity.cpu:g}"
    if capacity.memory and need.memory > capacity.memory:
        return f"asks for {need.memory / 2**30:.1f} GiB of memory, and this home has {capacity.memory / 2**30:.1f}"
    have = sum(need.gpu_kind in {None, g.kind} for g in capacity.gpus)
    if need.gpus > have:
        kind = f" of kind {need.gpu_kind}" if need.gpu_kind else ""
        return f"asks for {need.gpus} GPUs{kind}, and this home has {have}"
    return None


@dataclass(slots=True)
class _Waiting:
    need: Need
    priority: float
    order: int
    passed_over: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """A step may start now, on these accelerators."""

    key: Key
    gpus: tuple[int, ...] = ()


@dataclass(slots=True)
class _Run:
    """One run's share: what it holds, and its waiting steps in one heap per need."""

    used: float = 0.0
    heaps: dict[Need, list[tuple[float, int, str]]] = field(default_factory=dict)


class Schedule:
    """The waiting and the running of one home. Every key waits at most once at a time."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._cpu = capacity.cpu
        self._memory = capacity.memory
        self._gpus = list(capacity.gpus)
        self._runs: dict[int, _Run] = {}
        self._waiting: dict[Key, _Waiting] = {}
        self._held: dict[Key, tuple[Need, tuple[Gpu, ...]]] = {}
        self._order = 0

    @property
    def held(self) -> Mapping[Key, tuple[Need, tuple[Gpu, ...]]]:
        """What runs now, with what it holds."""
        return self._held

    @property
    def waiting(self) -> Iterable[Key]:
        return self._waiting.keys()

    def ask(self, key: Key, need: Need, priority: float = 0.0) -> None:
        """A step is ready; a higher priority (seconds of its longest remaining path) starts earlier in its run."""
        self._order += 1
        self._waiting[key] = _Waiting(need, priority, self._order)
        run = self._runs.setdefault(key[0], _Run())
        heapq.heappush(run.heaps.setdefault(need, []), (-priority, self._order, key[1]))

    def withdraw(self, key: Key) -> None:
        """A step waits no more (its run was stopped)."""
        self._waiting.pop(key, None)

    def take(self, key: Key, need: Need, gpus: Iterable[int] = ()) -> None:
        """A step runs already (found again after a restart): it holds its share whether that fits or not."""
        self._hold(key, need, frozenset(gpus))

    def release(self, key: Key) -> None:
        """A step has ended."""
        need, gpus = self._held.pop(key)
        self._cpu += need.cpu
        self._memory += need.memory
        self._gpus.extend(gpus)
        if key[0] in self._runs:
            self._runs[key[0]].used -= need.cpu

    def grant(self) -> list[Grant]:
        """All that may start now. The run that holds least goes first; within a run the longest path."""
        granted = []
        while (key := self._next()) is not None:
            waiting = self._waiting.pop(key)
            granted.append(Grant(key, self._hold(key, waiting.need)))
        return granted

    def _hold(self, key: Key, need: Need, known: frozenset[int] = frozenset()) -> tuple[int, ...]:
        suitable = (g for g in self._gpus if need.gpu_kind in {None, g.kind})
        chosen = tuple(g for g in self._gpus if g.index in known) or tuple(suitable)[: need.gpus]
        self._gpus = [g for g in self._gpus if g not in chosen]
        self._cpu -= need.cpu
        self._memory -= need.memory
        self._held[key] = (need, chosen)
        self._runs.setdefault(key[0], _Run()).used += need.cpu
        return tuple(g.index for g in chosen)

    def _next(self) -> Key | None:
        heads = self._heads()
        if not heads:
            return None
        impatient = min((h for h in heads if self._waiting[h].passed_over >= PATIENCE), key=self._age, default=None)
        if impatient is not None:
            return impatient if self._fits(self._waiting[impatient].need) else None
        fitting = [h for h in heads if self._fits(self._waiting[h].need)]
        if not fitting:
            return None
        chosen = min(fitting, key=self._rank)
        for head in heads:
            if head != chosen and not self._fits(self._waiting[head].need):
                self._waiting[head].passed_over += 1
        return chosen

    def _age(self, key: Key) -> int:
        return self._waiting[key].order

    def _rank(self, key: Key) -> tuple[float, float, int]:
        waiting = self._waiting[key]
        return (self._runs[key[0]].used, -waiting.priority, waiting.order)

    def _heads(self) -> list[Key]:
        """The first of every run and need; what was withdrawn meanwhile is dropped."""
        heads = []
        for number, run in list(self._runs.items()):
            for need, heap in list(run.heaps.items()):
                while heap and self._is_stale(number, heap[0]):
                    heapq.heappop(heap)
                if heap:
                    heads.append((number, heap[0][2]))
                else:
                    del run.heaps[need]
            if not run.heaps and not run.used:
                del self._runs[number]
        return heads

    def _is_stale(self, run: int, entry: tuple[float, int, str]) -> bool:
        waiting = self._waiting.get((run, entry[2]))
        return waiting is None or waiting.order != entry[1]

    def _fits(self, need: Need) -> bool:
        gpus = sum(need.gpu_kind in {None, g.kind} for g in self._gpus)
        has_memory = not self._capacity.memory or need.memory <= self._memory
        return need.cpu <= self._cpu + 1e-9 and has_memory and need.gpus <= gpus
