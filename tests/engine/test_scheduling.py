"""The schedule: never over capacity, never idle while something fits, nobody passed over for ever."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.scheduling import PATIENCE, Capacity, Gpu, Key, Need, Schedule, why_never
from penstock.errors import EngineError

CAPACITY = Capacity(4, 8, (Gpu(0, "a100"), Gpu(1, "a100"), Gpu(2, "t4")))

needs = st.builds(
    Need,
    cpu=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    memory=st.integers(0, 8),
    gpus=st.integers(0, 2),
    gpu_kind=st.sampled_from([None, "a100"]),
)


def check_capacity(schedule: Schedule) -> None:
    """What is held never exceeds what there is, and no GPU is held twice."""
    held = list(schedule.held.values())
    assert sum(need.cpu for need, _ in held) <= CAPACITY.cpu + 1e-9
    assert sum(need.memory for need, _ in held) <= CAPACITY.memory
    gpus = [gpu for _, cards in held for gpu in cards]
    assert len(gpus) == len(set(gpus))
    assert all(len(cards) == need.gpus for need, cards in held)
    assert all(card.kind == need.gpu_kind for need, cards in held for card in cards if need.gpu_kind)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), needs, st.floats(0, 100)), max_size=40), st.randoms(use_true_random=False))
def test_everything_that_can_fit_runs_and_nothing_beyond_capacity(
    asked: list[tuple[int, Need, float]], order: Random
) -> None:
    """Whatever is asked and in whatever order it ends, capacity holds and everything has its turn."""
    schedule = Schedule(CAPACITY)
    for number, (run, need, priority) in enumerate(asked):
        schedule.ask((run, f"s{number}"), need, priority)
    ran: list[Key] = []
    while True:
        ran += [grant.key for grant in schedule.grant()]
        check_capacity(schedule)
        if not schedule.held:
            break
        schedule.release(order.choice(sorted(schedule.held)))
    assert len(ran) == len(set(ran)) == len(asked)
    assert not list(schedule.waiting)


def barred(schedule: Schedule, need: Need, since: set[Key]) -> bool:
    """Whether a need fits now and must wait all the same: it would take room kept for another, beside what started
    `since` that room is kept; reckoned anew from what is held.
    """
    kept = schedule.kept_for
    if kept is None:
        return False
    want = ASKED[kept]
    beside = [schedule.held[key] for key in since if key in schedule.held]
    cpu = sum(n.cpu for n, _ in beside) + need.cpu + want.cpu
    memory = sum(n.memory for n, _ in beside) + need.memory + want.memory
    return cpu > CAPACITY.cpu or memory > CAPACITY.memory or bool(need.gpus and want.gpus)


def fits(schedule: Schedule, need: Need) -> bool:
    """Whether a need fits beside what is held, reckoned anew."""
    held = list(schedule.held.values())
    used = {gpu for _, cards in held for gpu in cards}
    free = [g for g in CAPACITY.gpus if g not in used and need.gpu_kind in {None, g.kind}]
    has_cpu = sum(n.cpu for n, _ in held) + need.cpu <= CAPACITY.cpu
    return has_cpu and sum(n.memory for n, _ in held) + need.memory <= CAPACITY.memory and need.gpus <= len(free)


ASKED: dict[Key, Need] = {}
"""The needs of the example that is played now."""


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), needs, st.floats(0, 100)), min_size=90, max_size=200),
    st.randoms(use_true_random=False),
)
def test_nothing_is_idle_while_something_fits(asked: list[tuple[int, Need, float]], order: Random) -> None:
    """After every grant each step that waits does not fit, or would take the room kept for one that waited too long."""
    ASKED.clear()
    schedule, since, kept = Schedule(CAPACITY), set[Key](), None
    for number, (run, need, priority) in enumerate(asked):
        ASKED[run, f"s{number}"] = need
        schedule.ask((run, f"s{number}"), need, priority)
        granted = {grant.key for grant in schedule.grant()}
        since = since | granted if schedule.kept_for == kept else granted
        kept = schedule.kept_for
        assert all(not fits(schedule, ASKED[k]) or barred(schedule, ASKED[k], since) for k in schedule.waiting)
        if len(schedule.held) > 1 and order.random() < 0.8:
            schedule.release(order.choice(sorted(schedule.held)))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_runs_that_wait_hold_equal_shares(sizes: list[int], order: Random) -> None:
    """Of runs with steps alike none holds two more than another that waits, whatever ends when."""
    schedule = Schedule(Capacity(5))
    for run, size in enumerate(sizes):
        for number in range(size):
            schedule.ask((run, f"s{number}"), Need(), order.random())
    while schedule.grant() or schedule.held:
        counts = Counter(dict.fromkeys(range(len(sizes)), 0) | Counter(key[0] for key in schedule.held))
        for run in {key[0] for key in schedule.waiting}:
            assert max(counts.values()) - counts[run] <= 1
        schedule.release(order.choice(sorted(schedule.held)))


def test_a_big_step_is_not_passed_over_for_ever() -> None:
    """While small steps keep coming, one that needs everything still has its turn after PATIENCE others."""
    schedule = Schedule(Capacity(2))
    schedule.ask((1, "small0"), Need(1))
    schedule.grant()
    schedule.ask((2, "big"), Need(2))
    number = 0
    while (2, "big") not in schedule.held:
        number += 1
        assert number < 2 * PATIENCE
        schedule.ask((1, f"small{number}"), Need(1))
        schedule.grant()
        schedule.release(next(iter(schedule.held)))
        schedule.grant()


def test_a_stream_of_new_runs_passes_over_nobody() -> None:
    """A run that waits has its turn before runs that came later, however urgent these are."""
    schedule = Schedule(Capacity(1))
    schedule.ask((0, "first"), Need())
    schedule.grant()
    schedule.ask((1, "patient"), Need(), 0.0)
    schedule.ask((2, "urgent"), Need(), 1000.0)
    schedule.release((0, "first"))
    assert [grant.key for grant in schedule.grant()] == [(1, "patient")]


def test_room_that_is_kept_leaves_the_rest_to_others() -> None:
    """While a step waits for the one GPU that a long one holds, steps without GPU go on, but leave it a processor."""
    schedule = Schedule(Capacity(3, gpus=(Gpu(0),)))
    schedule.ask((1, "train"), Need(gpus=1))
    schedule.ask((2, "train"), Need(gpus=1))
    schedule.grant()
    for number in range(PATIENCE + 9):
        schedule.ask((3, f"small{number}"), Need())
        assert [grant.key for grant in schedule.grant()] == [(3, f"small{number}")]
        schedule.release((3, f"small{number}"))
    assert schedule.kept_for == (2, "train")
    schedule.ask((3, "one"), Need())
    schedule.ask((3, "more"), Need())
    schedule.ask((3, "most"), Need())
    assert [grant.key[1] for grant in schedule.grant()] == ["one", "more"]
    schedule.release((1, "train"))
    assert [grant.key for grant in schedule.grant()] == [(2, "train")]


def test_any_kind_leaves_the_kind_that_another_asks_for() -> None:
    """A step that takes any accelerator gets one for which nobody else waits, so that both run."""
    schedule = Schedule(Capacity(4, gpus=(Gpu(0, "a100"), Gpu(1, "t4"))))
    schedule.ask((1, "any"), Need(gpus=1), 9.0)
    schedule.ask((1, "named"), Need(gpus=1, gpu_kind="a100"))
    assert [(grant.key[1], grant.gpus) for grant in schedule.grant()] == [("any", (1,)), ("named", (0,))]


def test_shares_add_up_to_nothing() -> None:
    """Fractions of processors neither gain nor lose by being handed out a thousand times."""
    schedule = Schedule(Capacity(1))
    for number in range(1000):
        for part in ("a", "b", "c"):
            schedule.ask((1, f"{part}{number}"), Need(0.1 if part == "a" else 0.3))
        for grant in schedule.grant():
            schedule.release(grant.key)
    schedule.ask((1, "whole"), Need(1.0))
    assert len(schedule.grant()) == 1


def test_what_waits_or_runs_cannot_ask_again() -> None:
    """Asking twice, taking what runs and ending what does not run are refused, and change nothing."""
    schedule = Schedule(Capacity(1))
    schedule.ask((1, "a"), Need())
    for _ in range(2):
        with pytest.raises(ValueError, match="step a of run 1 waits or runs already"):
            schedule.ask((1, "a"), Need())
        with pytest.raises(ValueError, match="waits or runs already"):
            schedule.take((1, "a"), Need())
        schedule.grant()
    with pytest.raises(KeyError):
        schedule.release((1, "b"))
    with pytest.raises(EngineError, match="step big asks for 2 processors, and this home has 1: ask for less"):
        schedule.ask((1, "big"), Need(2))
    schedule.withdraw((1, "b"))
    assert (set(schedule.held), list(schedule.waiting)) == ({(1, "a")}, [])


def test_room_is_kept_no_more_for_one_that_went_away() -> None:
    """When the step for which room is kept waits no more, the others have it."""
    schedule = Schedule(Capacity(2))
    schedule.ask((1, "long"), Need())
    schedule.grant()
    schedule.ask((2, "big"), Need(2))
    for number in range(PATIENCE):
        schedule.ask((3, f"s{number}"), Need())
        schedule.release(schedule.grant()[0].key)
    schedule.ask((3, "last"), Need())
    assert (schedule.kept_for, schedule.grant()) == ((2, "big"), [])
    schedule.withdraw((2, "big"))
    assert (schedule.kept_for, [grant.key for grant in schedule.grant()]) == (None, [(3, "last")])


def test_what_was_taken_beyond_capacity_is_waited_for() -> None:
    """Steps found again may exceed a home that became smaller; nothing starts until enough of them ended."""
    schedule = Schedule(Capacity(1, gpus=(Gpu(0),)))
    schedule.take((1, "a"), Need(2, gpus=1), [0])
    schedule.take((1, "b"), Need(1, gpus=1), [0])
    schedule.ask((1, "c"), Need(1, gpus=1))
    schedule.release((1, "a"))
    assert not schedule.grant()
    schedule.release((1, "b"))
    assert [grant.gpus for grant in schedule.grant()] == [(0,)]


def test_the_longest_path_goes_first_and_runs_share() -> None:
    """Within a run the highest priority starts first; between runs the one that holds least."""
    schedule = Schedule(Capacity(2))
    for name, priority in (("short", 1.0), ("long", 9.0), ("middle", 5.0)):
        schedule.ask((1, name), Need(), priority)
    schedule.ask((2, "other"), Need(), 0.0)
    assert [grant.key for grant in schedule.grant()] == [(1, "long"), (2, "other")]
    schedule.release((1, "long"))
    assert [grant.key for grant in schedule.grant()] == [(1, "middle")]


def test_gpus_are_taken_again_after_a_restart() -> None:
    """A step found again holds the very GPUs that it had, and nobody else gets them."""
    schedule = Schedule(CAPACITY)
    schedule.take((1, "train"), Need(gpus=1), [1])
    schedule.ask((2, "train"), Need(gpus=2))
    assert schedule.grant()[0].gpus == (0, 2)


def test_what_can_never_fit_is_told_in_words() -> None:
    """Each kind of need that exceeds the home has its own sentence; one that fits has none."""
    assert why_never(Need(cpu=8), CAPACITY) == "asks for 8 processors, and this home has 4"
    assert "memory" in str(why_never(Need(memory=2**40), CAPACITY))
    assert why_never(Need(gpus=3, gpu_kind="a100"), CAPACITY) == "asks for 3 GPUs of kind a100, and this home has 2"
    assert why_never(Need(gpus=3), CAPACITY) is None
    assert why_never(Need(memory=2**40), Capacity(1)) is None


def test_who_withdraws_waits_no_more() -> None:
    """A withdrawn step is never granted, also if it asks again later with another need."""
    schedule = Schedule(Capacity(1))
    schedule.ask((1, "a"), Need())
    schedule.withdraw((1, "a"))
    assert schedule.grant() == []
    schedule.ask((1, "a"), Need(0.5))
    assert [grant.key for grant in schedule.grant()] == [(1, "a")]
