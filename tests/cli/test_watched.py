"""What `status` says of a watch: how it stands, whether anybody looks, how it ended."""

from dataclasses import replace
from typing import Any

from penstock.cli.watched import watch_words
from penstock.environments import WatchRules
from penstock.releases import ReleaseStatus
from penstock.store.contract import Release
from penstock.traffic import NOTHING, Arm, Reading
from penstock.watches import begun, looked, written

RULES = WatchRules.model_validate({"for": "1h"})
SERVING = Release(
    id=1,
    project="p",
    environment="production",
    generation=1,
    request=1,
    run=1,
    version="0.1",
    package="x",
    spec={"port": 80, "watch": RULES.model_dump()},
    actor="ada",
    status=ReleaseStatus.SERVING,
    reason=None,
    phase=None,
    fate=None,
    replaced=None,
    migration=None,
    rollout=None,
    watch=None,
    created=0.0,
    since=0.0,
    ended=None,
)


def state(at: float, requests: int, errors: int) -> dict[str, Any]:
    watch = begun(RULES, 0.0, Reading("1", NOTHING, NOTHING))
    return {"state": written(looked(watch, at, Reading("1", Arm(requests, errors), NOTHING)))}


def words(release: Release, *, attended: bool = True, newest: Release = SERVING) -> str | None:
    return watch_words(release, newest, lambda: attended)


def test_a_watch_that_goes_on_says_until_when_and_whether_anybody_looks() -> None:
    """The counts so far, and one word more where nothing works on the home."""
    watched = replace(SERVING, watch=state(60.0, 400, 1))
    said = words(watched) or ""
    assert said.startswith("watched until 19")
    assert said.endswith(": 400 requests, 1 failed")
    assert words(watched, attended=False) == f"{said}, unattended: penstock serve goes on with it"


def test_a_watch_that_nobody_begins_is_told() -> None:
    """Right after the promotion there is nothing to be told while somebody works on the home."""
    assert words(SERVING) is None
    assert words(SERVING, attended=False) == "its watch has not begun, unattended: penstock serve begins it"
    assert words(replace(SERVING, spec={"port": 80}), attended=False) is None


def test_a_watch_that_has_ended_tells_what_it_saw() -> None:
    """By its time: the counts. By a breach: nothing, since the reason on the release says it."""
    assert words(replace(SERVING, watch=state(3600.0, 400, 1))) == "was watched for 1 h 00 min: 400 requests, 1 failed"
    assert words(replace(SERVING, watch={**state(60.0, 400, 200), "todo": []})) is None


def test_what_was_rolled_back_by_its_watch_is_told() -> None:
    """The release that serves again does not hide why the newest one does not."""
    reason = "rolled back to 0.1 by its watch: 200 of 400 requests failed (50 %), where 1 % may"
    newest = replace(SERVING, id=2, version="0.2", status=ReleaseStatus.ROLLED_BACK, reason=reason, watch={"todo": []})
    assert words(replace(SERVING, spec={"port": 80}), newest=newest) == f"0.2 was {reason}"
    by_hand = replace(newest, watch=None)
    assert words(replace(SERVING, spec={"port": 80}), newest=by_hand) is None
