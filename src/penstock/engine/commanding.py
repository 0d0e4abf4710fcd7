"""Commands that a release runs once, of a migration or of a deployment elsewhere: followed to their end, in their time.

Who follows one need not have started it: it outlives its coordinator, and the next one reads how it ended.
"""

import asyncio
from pathlib import Path

from penstock.engine import logfiles
from penstock.engine.contracts import Ending, Handle
from penstock.engine.execution import ending_words
from penstock.engine.installing import Stopping
from penstock.engine.serving import HEALTH_INTERVAL
from penstock.engine.world import World
from penstock.runs import EndReason

UNTOLD = frozenset({EndReason.LOST, EndReason.INFRASTRUCTURE, EndReason.CANCELED})
"""Ends that say nothing of the command: it may run again."""


async def followed(world: World, handle: Handle, limit: float, stopping: Stopping) -> tuple[EndReason, Ending]:
    """See a command to its end: by itself, or ended where `limit` (of the monotonic clock) is over or it is stopped.

    Nothing of it lives then, and its log is no longer than logs may be.
    """
    runner = world.runner
    why = await _until_end(world, handle, limit, stopping)
    ending = await runner.wait(handle)
    if ending.log_end - handle.log_start > world.log_limit:
        await asyncio.to_thread(logfiles.cap, Path(handle.log), handle.log_start, world.log_limit)
    if ending.lost:
        await runner.end(handle, world.grace)  # what its shim left behind
    return why or _reason(ending), ending


async def _until_end(world: World, handle: Handle, limit: float, stopping: Stopping) -> EndReason | None:
    """Wait for the end, or end it: why it was ended, or None where it ended by itself."""
    waiting = asyncio.ensure_future(world.runner.wait(handle))
    try:
        while not (await asyncio.wait({waiting}, timeout=HEALTH_INTERVAL))[0]:
            late = world.clock.monotonic() > limit
            if late or stopping() is not None:
                await world.runner.end(handle, world.grace)
                return EndReason.TIMEOUT if late else EndReason.CANCELED
    finally:
        waiting.cancel()
    return None


def _reason(ending: Ending) -> EndReason:
    if ending.oom:
        return EndReason.OOM
    if ending.unplaced:
        return EndReason.INFRASTRUCTURE
    return EndReason.LOST if ending.lost else EndReason.EXIT


def judged(reason: EndReason, ending: Ending, timeout: float) -> tuple[str, str | None]:
    """What a command's end means, as `pass`, `fail` or `lose`, and in words where it did not pass."""
    if reason is EndReason.EXIT and ending.exit_code == 0:
        return "pass", None
    asked = "it was stopped" if reason is EndReason.CANCELED else None
    return "lose" if reason in UNTOLD else "fail", asked or ending_words(reason, ending.exit_code, timeout)
