"""Calls where nobody calls: recorded requests that go through the router, so that a rollout has something to judge."""

import asyncio
from dataclasses import replace

from penstock.engine.comparing import recordings_of
from penstock.engine.exchanges import Connection
from penstock.engine.installing import package_folder
from penstock.engine.world import World
from penstock.recordings import SYNTHETIC, Recording
from penstock.store.contract import Release

PACE = 0.005
"""Seconds from the beginning of one request to that of the next, at least: 200 a second."""
PATIENCE = 10.0
"""Seconds that an answer may take before the next request is asked."""
REST = 0.1
"""Seconds of rest after a request that nothing answered."""


async def call(world: World, release: Release, port: int, requests_file: str | None = None, *, tls: bool) -> None:
    """Ask a port a release's recorded requests again and again, one after the other, until canceled.

    `tls` is what the port speaks: that of the release which serves there, whatever the one that is tried brings.

    The file is of the release's package; absent: that of its probe. What is answered, or not, is for the router to
    count. Raises ReportError where the file holds no requests.
    """
    file = requests_file or str(release.spec["probe"]["requests"])
    recordings = await asyncio.to_thread(recordings_of, package_folder(world, release), file)
    marked = [_marked(recording) for recording in recordings]
    loop = asyncio.get_running_loop()
    async with Connection(port, PATIENCE, tls=tls) as connection:
        while True:
            for recording in marked:
                due = loop.time() + PACE
                reply, _ = await connection.ask(recording)
                await asyncio.sleep(REST if reply.status is None else max(0.0, due - loop.time()))


def _marked(recording: Recording) -> Recording:
    others = tuple((name, value) for name, value in recording.headers if name.lower() != SYNTHETIC)
    return replace(recording, headers=(*others, (SYNTHETIC, "1")))
