"""What `status` says of the watch of a release after its promotion."""

from collections.abc import Callable

from penstock.cli.pictures import duration, moment
from penstock.engine.followers import CoordinatorLock
from penstock.engine.world import World
from penstock.releases import ReleaseStatus
from penstock.store.contract import Release
from penstock.watches import summary, taken_up


def watch_words(serving: Release, newest: Release, is_attended: Callable[[], bool]) -> str | None:
    """How the watch of what serves stands, or that the newest release of the environment was rolled back by its own.

    `unattended` is a watch while nothing works on the home. Of a breach the release's reason speaks.
    """
    if newest.status is ReleaseStatus.ROLLED_BACK and "todo" in (newest.watch or {}):
        return f"{newest.version} was {newest.reason}"
    if not serving.spec.get("watch"):
        return None
    watch = taken_up((serving.watch or {}).get("state"))
    if watch is None:
        return None if is_attended() else "its watch has not begun, unattended: penstock serve begins it"
    if watch.ended is None:
        alone = "" if is_attended() else ", unattended: penstock serve goes on with it"
        return f"watched until {moment(watch.begun + watch.lasts)}: {summary(watch)}{alone}"
    return f"was watched for {duration(watch.lasts)}: {summary(watch)}" if watch.ended.kind == "over" else None


def is_attended(world: World) -> bool:
    """Whether a coordinator works on the home."""
    lock = CoordinatorLock(world.home.lock)
    attended = not lock.acquire()
    lock.release()
    return attended
