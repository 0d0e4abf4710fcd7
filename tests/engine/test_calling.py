"""Calls where nobody calls: recorded requests of a package that go to a port again and again, marked as ours."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from engine.builders import House, until
from engine.servers import Small
from penstock.engine.calling import MARK, PACE, call
from penstock.engine.installing import package_folder
from penstock.errors import ReportError
from penstock.store.contract import Release

LINES = '{"path": "/1", "headers": {"X-Penstock-Synthetic": "no", "X-Own": "yes"}}\n{"path": "/2", "json": 1}\n'


def released(house: House, text: str = LINES, **spec: Any) -> Release:
    """A release whose package holds recorded requests."""
    wanted = house.wanted("0.1", **spec)
    values = {name: getattr(wanted, name) for name in type(wanted).__slots__ if name != "force"}
    with house.store.transaction():
        release = house.store.releases.add(values)
    folder = package_folder(house.world, release)
    folder.mkdir(parents=True)
    (folder / "asked.jsonl").write_text(text)
    return release


async def calling(house: House, release: Release, port: int, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Call a port while something goes on, and then stop."""
    task = asyncio.create_task(call(house.world, release, port, "asked.jsonl"))
    try:
        await meanwhile()
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_the_requests_are_asked_again_and_again(house: House) -> None:
    """In the file's order, over and over, each marked once as synthetic beside its own headers."""
    release = released(house)

    async def story() -> None:
        async with Small().serving() as server:
            await calling(house, release, server.port, lambda: until(lambda: len(server.asked) >= 5))
            assert server.paths[:5] == ["/1", "/2", "/1", "/2", "/1"]
            assert all(head.lower().count(MARK) == 1 and f"{MARK}: 1\r\n" in head for head in server.asked)
            assert "X-Own: yes\r\n" in server.asked[0]

    house.play(story())


def test_the_pace_is_bounded(house: House) -> None:
    """However quick the answers are, no more than 200 requests a second are asked."""
    release = released(house)

    async def story() -> None:
        async with Small().serving() as server:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await calling(house, release, server.port, lambda: until(lambda: len(server.asked) >= 21))
            assert loop.time() - began >= 20 * PACE - 0.01

    house.play(story())


def test_what_fails_does_not_end_it(house: House) -> None:
    """Errors, broken connections and a port where nothing listens for a while are for the router to count."""
    release = released(house)
    server = Small(lambda path, n: None if path == "/2" else (500, n))

    async def meanwhile() -> None:
        async with server.serving():
            await until(lambda: len(server.asked) >= 4)
        before = len(server.asked) + 1  # one may be on its way
        async with server.serving():
            await until(lambda: len(server.asked) > before)

    async def story() -> None:
        async with server.serving():
            pass
        await calling(house, release, server.port, meanwhile)

    house.play(story())


def test_the_file_of_the_probe_is_meant(house: House) -> None:
    """Without a file of its own that of the release's probe is asked; one without requests is refused."""

    async def story() -> None:
        release = released(house, "\n", probe={"requests": "asked.jsonl"})
        with pytest.raises(ReportError, match=r"asked\.jsonl: the file holds no request"):
            await call(house.world, release, 1)

    house.play(story())
