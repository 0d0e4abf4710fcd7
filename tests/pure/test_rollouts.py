"""Weights of an environment's releases, and which of them may end."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.releases import ReleaseStatus
from penstock.rollouts import FULL, Placed, cold, weights

OTHER: list[ReleaseStatus] = [s for s in ReleaseStatus if s is not ReleaseStatus.SERVING]
IN_ROUTE = {ReleaseStatus.SERVING, ReleaseStatus.STARTING, ReleaseStatus.DRAINING}
OVER = {ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK}


@st.composite
def environments(draw: st.DrawFn) -> list[Placed]:
    """Releases of one environment in any order, at most one of them serving."""
    statuses = draw(st.lists(st.sampled_from(OTHER), max_size=8))
    statuses += [ReleaseStatus.SERVING] * draw(st.integers(0, 1))
    since = st.none() | st.sampled_from([1.0, 2.0, 3.0]) | st.floats(0, 1e9)
    placed = [Placed(n, status, draw(since)) for n, status in enumerate(draw(st.permutations(statuses)), 1)]
    return list(draw(st.permutations(placed)))


@given(environments())
def test_exactly_the_serving_release_gets_everything(placed: list[Placed]) -> None:
    """The serving release has the whole weight, candidates and draining ones have none, the others no place."""
    parts = weights(placed)
    serving = [p.release for p in placed if p.status is ReleaseStatus.SERVING]
    assert sum(parts.values()) == FULL * len(serving)
    assert [n for n, weight in parts.items() if weight] == serving
    assert parts.keys() == {p.release for p in placed if p.status in IN_ROUTE}


@given(environments(), st.integers(0, 3))
def test_warm_are_the_last_that_served(placed: list[Placed], keep: int) -> None:
    """All retired releases but the newest `keep` may end, and all that were rejected or rolled back; nothing else."""
    retired = [p for p in placed if p.status is ReleaseStatus.RETIRED]
    ended = cold(placed, keep)
    assert len(ended) == len(set(ended))
    warm = [p for p in retired if p.release not in ended]
    assert len(warm) == min(keep, len(retired))
    assert all((w.since or 0.0) >= (c.since or 0.0) for w in warm for c in retired if c.release in ended)
    assert {*ended} - {p.release for p in retired} == {p.release for p in placed if p.status in OVER}


@given(environments())
def test_what_has_traffic_is_never_cold(placed: list[Placed]) -> None:
    """No release that is in the route may end."""
    assert not weights(placed).keys() & {*cold(placed)}


def test_one_stays_warm() -> None:
    """Without being told otherwise one release waits for a rollback: the last one; ties go to the higher number."""
    served = [Placed(n, ReleaseStatus.RETIRED, 5.0) for n in (1, 2, 3)]
    assert cold(served) == (2, 1)
    assert cold([Placed(4, ReleaseStatus.RETIRED, 9.0), Placed(5, ReleaseStatus.RETIRED, 8.0)]) == (5,)
