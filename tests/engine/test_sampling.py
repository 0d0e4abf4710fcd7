"""Looking for drift: which exchanges count, how windows fill and survive a death, and what is told."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.builders import PROJECT, House
from penstock.drifts import Look
from penstock.engine import sampling
from penstock.engine.contracts import Exchange
from penstock.engine.sampling import Sampling, Watched, Window, read_sample
from penstock.errors import EngineError, ReportError
from penstock.store.contract import Release

ROUTE = f"{PROJECT.id}-production"
RULES: dict[str, Any] = {
    "reference": "model",
    "share": 1.0,
    "window": 100,
    "interval": 1.0,
    "confidence": 0.95,
    "psi": 0.2,
    "features": [],
}


def numbers(rows: int, seed: int, shift: float = 0.0) -> list[float]:
    dice = random.Random(seed)  # noqa: S311 - no secret
    return [dice.gauss(shift, 1) for _ in range(rows)]


def sample_file(rows: int = 300, **more: Any) -> str:
    return "".join(json.dumps({"path": "/predict", "json": {"x": x}, **more}) + "\n" for x in numbers(rows, 1))


def exchange(x: float, **fields: Any) -> Exchange:
    made = Exchange("0.1", "POST", "/predict?a=1", json.dumps({"x": x}).encode(), 200, b'{"y": 1}')
    return replace(made, **fields)


async def release(house: House, reference: str) -> Release:
    """A release that serves, whose package's only file is the sample."""
    return await house.deliver(house.wanted("0.1", package=house.package(reference), drift=RULES))


# --- samples -------------------------------------------------------------------------------------------------------


def test_only_good_answers_to_what_the_sample_asks_are_rows() -> None:
    """Another path or method, an error, or a request of another kind is no row; what is no JSON has no features."""
    sample = read_sample(sample_file(answer={"y": 1}).encode(), "sample.jsonl")
    assert sample.row(exchange(2.0)) == {"x": 2.0, "answer.y": 1.0}
    assert sample.row(exchange(2.0, answer=b"no JSON")) == {"x": 2.0}
    assert sample.row(exchange(2.0, request=b"[" * 100_000)) == {"answer.y": 1.0}
    others: list[dict[str, Any]] = [{"path": "/explain"}, {"method": "PUT"}, {"status": 500}, {"status": 404}]
    assert [sample.row(exchange(2.0, **other)) for other in others] == [None] * 4


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (sample_file(49), EngineError, "49 requests are too few to tell drift: record at least 50"),
        ('{"path": "/health"}\n' * 60, EngineError, "no request or answer has a number or a text in JSON"),
        ("no JSON\n", ReportError, "sample.jsonl:1"),
    ],
)
def test_a_sample_that_shows_nothing_is_refused(text: str, error: type[Exception], words: str) -> None:
    """Too few requests, requests without features, or no requests: one sentence says which."""
    with pytest.raises(error, match=words):
        read_sample(text.encode(), "sample.jsonl")


def test_only_what_is_compared_is_kept_of_a_request() -> None:
    """A feature that is not named, or that the sample lacks, is in no row; a name that nothing has is refused."""
    data = sample_file(answer={"y": 1, "z": 1}).encode()
    sample = read_sample(data, "sample.jsonl", ["answer.y"])
    assert sample.rows[0] == {"answer.y": 1.0}
    assert sample.row(exchange(2.0, request=b'{"x": 1, "secret": "s"}')) == {"answer.y": 1.0}
    with pytest.raises(EngineError, match="has a number or a text called who in JSON"):
        read_sample(data, "sample.jsonl", ["who"])


def test_a_large_sample_is_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 requests where 100 are held every third counts."""
    monkeypatch.setattr(sampling, "MOST", 100)
    sample = read_sample(sample_file().encode(), "sample.jsonl")
    assert [row["x"] for row in sample.rows] == numbers(300, 1)[::3]


# --- windows -------------------------------------------------------------------------------------------------------


def test_a_window_is_private_and_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """Its file is its owner's alone; a torn line is left out, and what comes after it is whole."""
    path = tmp_path / "window-1.jsonl"
    Window(path).add([{"x": 1.0}, {"x": 2.0}])
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as file:
        file.write('{"x": 3')
    again = Window(path)
    again.add([{"x": 4.0}])
    assert [row["x"] for row in Window(path).rows] == [1.0, 2.0, 4.0]
    again.forget()
    assert Window(path).rows == []


async def looks(house: House, watched: Watched, xs: Sequence[float]) -> list[Look]:
    """Let these requests pass and listen until they are heard; the looks that came of it."""
    house.router.passing[ROUTE] += [exchange(x) for x in xs]
    found = []
    while house.router.passing[ROUTE]:
        look = await watched.listen()
        found += [look] if look is not None else []
    return found


def test_windows_follow_each_other_and_share_no_row(house: House) -> None:
    """250 requests are two looks and half a window; the second, of others, shows drift, and both are kept."""

    async def story() -> None:
        serving = await release(house, sample_file())
        watched = Watched(house.world, serving, read_sample(sample_file().encode(), "model"))
        found = await looks(house, watched, [*numbers(100, 4), *numbers(100, 3, shift=2), *numbers(50, 5)])
        assert [(look.number, look.drifted) for look in found] == [(1, ()), (2, ("x",))]
        (detection,) = house.store.drifts.detections(serving.id)
        assert (detection.number, detection.rows, detection.drifted) == (2, 100, ["x"])
        assert detection.features[0]["p"] < 1e-6
        files = sorted(path.name for path in house.world.home.release(serving.id).glob("window-*"))
        assert files == ["window-3.jsonl"]

    house.play(story())


def test_another_watcher_goes_on_with_the_window(house: House) -> None:
    """After a death the rows so far count; a window that was looked at already, but not deleted, does not."""

    async def story() -> None:
        serving = await release(house, sample_file())
        sample = read_sample(sample_file().encode(), "model")
        assert await looks(house, Watched(house.world, serving, sample), numbers(60, 2)) == []
        folder = house.world.home.release(serving.id)
        kept = (folder / "window-1.jsonl").read_text()
        (look,) = await looks(house, Watched(house.world, serving, sample), numbers(40, 3))
        assert look.features[0].rows == 100
        (folder / "window-1.jsonl").write_text(kept)
        again = Watched(house.world, serving, sample)
        assert not (folder / "window-1.jsonl").exists()
        assert await looks(house, again, numbers(60, 4)) == []

    house.play(story())


def test_answers_of_another_release_do_not_count(house: House) -> None:
    """While a canary answers some of the requests, only those of the release that serves are looked at."""

    async def story() -> None:
        serving = await release(house, sample_file())
        watched = Watched(house.world, serving, read_sample(sample_file().encode(), "model"))
        house.router.passing[ROUTE] += [exchange(x, release="0.2") for x in numbers(200, 2)]
        while house.router.passing[ROUTE]:
            assert await watched.listen() is None
        assert not list(house.world.home.release(serving.id).glob("window-*"))

    house.play(story())


def test_a_turn_waits_for_its_part_of_the_interval(house: House) -> None:
    """Of a window of 100 in one second five requests are 50 ms; a turn that heard nothing waits for nothing."""

    async def story() -> None:
        serving = await release(house, sample_file())
        watched = Watched(house.world, serving, read_sample(sample_file().encode(), "model"))
        now = house.world.clock.monotonic()
        await watched.listen()
        assert watched.due - now < 0.05
        house.router.passing[ROUTE] += [exchange(x) for x in numbers(5, 2)]
        before = house.world.clock.monotonic()
        await watched.listen()
        assert watched.due - before >= 0.05

    house.play(story())


# --- watching ------------------------------------------------------------------------------------------------------


def test_drift_is_said_and_trouble_is_said_once(house: House) -> None:
    """What serves is watched without being named; a sample that cannot be read is told, and hinders nobody."""

    async def story() -> None:
        said: list[str] = []
        serving = await release(house, sample_file())
        watching = asyncio.create_task(Sampling(house.world, said.append).watch())
        house.router.passing[ROUTE] += [exchange(x) for x in numbers(100, 2, shift=3)]
        while not said:
            await asyncio.sleep(0.01)
        assert said[0].startswith("production: 0.1 sees drift: feature x: PSI ")
        assert house.store.drifts.count(serving.id) == 1
        await house.deliver(house.wanted("0.2", package=house.package("no sample"), drift=RULES))
        while len(said) < 2:
            await asyncio.sleep(0.01)
        assert not list(house.world.home.release(serving.id).glob("window-*"))
        assert said[1].startswith("production: 0.2 is not watched for drift: model:1: this is no JSON")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert len(said) == 2

    house.play(story())


def test_a_sample_that_the_package_lacks_is_told(house: House) -> None:
    """One sentence with what to do; a release that nobody wants watched is left alone."""

    async def story() -> None:
        said: list[str] = []
        await house.deliver(house.wanted("0.1", drift={**RULES, "reference": "lost.jsonl"}))
        await house.deliver(house.wanted("0.1", environment="staging", port=8802))
        watching = asyncio.create_task(Sampling(house.world, said.append).watch())
        while not said:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        words = "the package has no lost.jsonl: add it to the package's code or model"
        assert said == [f"production: 0.1 is not watched for drift: {words}"]

    house.play(story())


def test_a_defect_is_told_once_and_survived(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks while one release is listened to, the others are, and it is tried again."""

    async def story() -> None:
        said: list[str] = []
        await release(house, sample_file())
        tried = 0
        enough = asyncio.Event()

        async def sampled(*_: Any) -> Sequence[Exchange]:
            nonlocal tried
            tried += 1
            if tried == 3:
                enough.set()
            raise RuntimeError("broken")

        monkeypatch.setattr(house.router, "sampled", sampled)
        monkeypatch.setattr(sampling, "PAUSE", 0.0)
        monkeypatch.setattr(sampling, "LATER", 0.0)
        watching = asyncio.create_task(Sampling(house.world, said.append).watch())
        await enough.wait()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert said == [
            "production: 0.1 is not watched for drift, by a defect of Penstock (RuntimeError: broken): please report it"
        ]

    house.play(story())
