"""The schedule: never over capacity, never idle while something fits, nobody passed over for ever."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.scheduling import PATIENCE, Capacity, Gpu, Key, Need, Schedule, why_never

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


@settings(max_examples=100, deadline=None)
@given(st.lists(needs, max_size=12), st.lists(needs, max_size=12))
def test_nothing_is_idle_while_something_fits(first: list[Need], second: list[Need]) -> None:
    """After a grant, no waiting step fits any more, unless room is kept for one that waited too long."""
    schedule = Schedule(CAPACITY)
    for run, group in enumerate((first, second)):
        for number, need in enumerate(group):
            schedule.ask((run, f"s{number}"), need)
    schedule.grant()
    free = Schedule(CAPACITY)
    for key, (need, cards) in schedule.held.items():
        free.take(key, need, [card.index for card in cards])
    for key in schedule.waiting:
        need = (first, second)[key[0]][int(key[1][1:])]
        free.ask((9, "probe"), need)
        assert not free.grant()
        free.withdraw((9, "probe"))


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
