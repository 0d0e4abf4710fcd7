"""The cache stays under its cap by itself: what was unused longest goes, what is needed stays, and it is remembered."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from engine.builders import House
from penstock.artifacts import Digest, File, Tree
from penstock.engine.sweeping import DAY, Freed, size_words, sweep, sweep_over_cap
from penstock.engine.world import World
from penstock.store.contract import Action

MEBIBYTE = 1 << 20


def noise(seed: int, size: int = MEBIBYTE) -> bytes:
    return Random(seed).randbytes(size)  # noqa: S311 (no secret, and the same every time)


class Shelf:
    """Results of a mebibyte each, in a cache that may hold so many of them; time passes when it is told to."""

    def __init__(self, house: House, cap: int) -> None:
        self.house = house
        self.world: World = replace(house.world, cache_cap=cap * MEBIBYTE)

    def add(self, key: str, *seeds: int, used: float, scope: str = "") -> Digest:
        """A result whose tree holds the contents of the seeds, used last so many seconds after the beginning."""
        cache = self.world.cache
        files = {f"f{seed}": File(cache.add_bytes(noise(seed)), MEBIBYTE) for seed in seeds}
        outputs = cache.add_tree(Tree(files))
        action = Action(key, "p1", key, 1, {"inputs": outputs}, {"outputs": outputs}, 1.0, used, scope)
        self.world.store.actions.put(action)
        return outputs

    def sweep(self, *, quiet: bool = True) -> Freed | None:
        return asyncio.run(sweep_over_cap(self.world, quiet=quiet))

    def keys(self) -> set[str]:
        return {action.key for action, _ in self.world.store.actions.all()}


@pytest.fixture
def shelf(house: House) -> Callable[[int], Shelf]:
    return lambda cap: Shelf(house, cap)


def test_what_was_unused_longest_goes(shelf: Callable[[int], Shelf]) -> None:
    """Over the cap results go by their last use until a tenth is free; each says why it went, and the rest is whole."""
    made = shelf(4)
    outputs = {key: made.add(key, seed, used=float(seed)) for seed, key in enumerate("abcdef")}
    made.house.clock.ahead = 2 * 3600.0
    freed = made.sweep()
    assert freed is not None
    assert (freed.results, freed.cap) == (3, 4 * MEBIBYTE)
    assert made.keys() == {"d", "e", "f"}
    assert freed.bytes >= 3 * MEBIBYTE
    assert freed.held == made.world.cache.usage().bytes
    eviction = made.world.store.actions.eviction("a")
    assert eviction is not None
    assert eviction.reason == "the cache was over its cap of 4 MiB"
    for key in "def":
        assert made.world.cache.closure([outputs[key]]) <= made.world.cache.stored().keys()
    assert made.sweep() is None


def test_under_the_cap_nothing_is_looked_at(shelf: Callable[[int], Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the cache was counted, a call below the cap looks at no blob; what was added since is known all the same."""
    made = shelf(4)
    made.add("a", 1, used=1.0)
    assert made.sweep() is None
    for name in ("usage", "stored", "sweep", "closure"):
        monkeypatch.setattr(type(made.world.cache), name, lambda *_: pytest.fail("blobs were looked at"))
    made.add("b", 2, used=2.0)
    assert made.sweep() is None
    monkeypatch.undo()
    for seed in range(3, 6):
        made.add(str(seed), seed, used=float(seed))
    made.house.clock.ahead = 2 * 3600.0
    assert made.sweep() is not None
    assert made.keys() == {"3", "4", "5"}


def test_what_is_touched_or_shared_stays(shelf: Callable[[int], Shelf]) -> None:
    """Bytes that somebody touched just now cannot go, so their results stay; bytes of two results go with the last."""
    made = shelf(2)
    made.add("old", 1, 2, used=1.0)
    made.add("shared", 2, 3, used=2.0)
    freed = made.sweep()
    assert freed is not None
    assert (freed.results, freed.blobs) == (0, 0)
    assert made.keys() == {"old", "shared"}
    made.house.clock.ahead = 2 * 3600.0
    freed = made.sweep(quiet=False)
    assert freed is None  # nothing was added since, so that nothing else can be expected
    made.add("new", 4, used=3.0)
    freed = made.sweep(quiet=False)
    assert freed is not None
    assert made.keys() == {"new"}
    assert freed.held < 2 * MEBIBYTE


def test_releases_and_recent_runs_keep_what_they_need(house: House) -> None:
    """Over the cap too, the package that serves and what the newest runs hold stay; and the cap is not reached."""
    made = Shelf(house, 1)
    big = noise(9, 3 * MEBIBYTE).hex()

    async def story() -> None:
        await house.deliver(house.wanted("1.0", package=house.package(big)))

    house.play(story())
    (release,) = house.store.releases.of()
    made.add("a", 1, used=1.0)
    house.clock.ahead = 2 * 3600.0
    freed = made.sweep()
    assert freed is not None
    assert made.keys() == set()
    assert freed.held > freed.cap
    package = Digest(release.package)
    assert made.world.cache.closure([package]) <= made.world.cache.stored().keys()
    assert made.sweep() is None, "what could not be done is not tried again at once"


def test_once_a_day_everything_unused_goes(shelf: Callable[[int], Shelf]) -> None:
    """A quiet home is tidied once a day: results that nothing used for a month go, with a reason of their own."""
    made = shelf(100)
    made.add("old", 1, used=made.house.clock.now() - 40 * DAY)
    made.add("new", 2, used=made.house.clock.now())
    assert made.sweep() is None
    made.house.clock.ahead = 1.5 * DAY
    assert made.sweep(quiet=False) is None
    freed = made.sweep()
    assert freed is not None
    assert (freed.results, made.keys()) == (1, {"new"})
    eviction = made.world.store.actions.eviction("old")
    assert eviction is not None
    assert eviction.reason == "nothing used it for 30 days"
    assert made.sweep() is None


def test_a_torn_count_is_counted_again(shelf: Callable[[int], Shelf]) -> None:
    """The file of the count only saves a look: without it, or with nonsense in it, everything is counted."""
    made = shelf(1)
    made.add("a", 1, 2, used=1.0)
    (made.world.home.cache / "usage.json").write_text("{")
    made.house.clock.ahead = 2 * 3600.0
    assert made.sweep() is not None
    assert made.keys() == set()


def test_gc_keeps_to_the_cap_too(shelf: Callable[[int], Shelf]) -> None:
    """The verb removes what is unused, then what is over the cap, and tells what is left."""
    made = shelf(1)
    made.add("a", 1, 2, used=made.house.clock.now())
    made.house.clock.ahead = 2 * 3600.0
    freed = asyncio.run(sweep(made.world, {"days": 7}))
    assert (freed.results, freed.cap) == (1, MEBIBYTE)
    assert freed.held == made.world.cache.usage().bytes


def test_a_home_without_a_cap_never_sweeps_for_one(shelf: Callable[[int], Shelf]) -> None:
    """A cap of 0 is none."""
    made = shelf(0)
    made.add("a", 1, 2, used=1.0)
    assert made.sweep(quiet=False) is None
    assert made.keys() == {"a"}


def test_a_cap_is_told_as_it_was_said() -> None:
    """In the unit in which it is round."""
    sizes = {
        20 << 30: "20 GiB",
        9_000_000: "9 MB",
        3 << 29: "1.5 GiB",
        10**12: "1 TB",
        64 << 10: "64 KiB",
        7: "7 bytes",
    }
    assert {size: size_words(size) for size in sizes} == sizes
