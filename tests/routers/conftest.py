"""A real Envoy in a folder of the test's own, and a server behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.routers.envoy import EnvoyRouter
from penstock.runners.process import ProcessRunner
from routers.toys import Toy


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def runner() -> ProcessRunner:
    return ProcessRunner()


@pytest.fixture
async def router(tmp_path: Path, runner: ProcessRunner) -> AsyncIterator[EnvoyRouter]:
    router = EnvoyRouter(tmp_path / "router", runner)
    yield router
    await router.stop()


@pytest.fixture
async def toy() -> AsyncIterator[Toy]:
    async with Toy("one").serving() as toy:
        yield toy
