"""Which commit may be released to which environment. The transition table is proved in test_runs.py."""

from typing import Any

import pytest

from penstock.commits import Commit
from penstock.pipelines import Environment
from penstock.releases import LIVE, MOVING, RELEASE_TRANSITIONS, ReleaseStatus, address, is_hooked, why_not


def environment(**fields: Any) -> Environment:
    return Environment.model_validate({"name": "production", "port": 8800, **fields})


def commit(*branches: str, default: str | None = "main", dirty: bool = False) -> Commit:
    return Commit("1a2b3c4d" * 5, None, branches, default, "Ada", "a change", "2026-01-02T03:04:05+00:00", dirty)


@pytest.mark.parametrize(
    ("branches", "on", "may"),
    [
        (None, ["main"], True),
        (None, ["topic", "main"], True),
        (None, ["topic"], False),
        (None, [], False),
        (["release/*"], ["release/1"], True),
        (["release/*"], ["main"], False),
        (["release/*"], ["release/1/fix"], False),
        (["main", "release/**"], ["release/1/fix"], True),
    ],
)
def test_a_commit_is_released_from_its_branches(branches: list[str] | None, on: list[str], may: bool) -> None:
    """A commit goes where a branch that it is on matches; without branches only the default branch does."""
    fields = {} if branches is None else {"branches": branches}
    assert (why_not(environment(**fields), commit(*on)) is None) is may


def test_why_a_commit_is_not_released() -> None:
    """The reason names the commit and the branches that would have done."""
    assert why_not(environment(), commit("topic")) == "commit 1a2b3c4 is not on main"
    wanted = environment(branches=["main", "release/*"])
    assert why_not(wanted, commit("topic")) == "commit 1a2b3c4 is not on main or release/*"


def test_a_working_tree_is_never_released() -> None:
    """What nobody committed goes nowhere, whatever branch it lies on."""
    reason = why_not(environment(branches=["**"]), commit("main", dirty=True))
    assert reason == "a working tree that nobody committed is never deployed"


def test_without_a_default_branch_the_file_must_say() -> None:
    """Where the repository has no default branch, the sentence asks for branches in the file."""
    reason = why_not(environment(), commit("one", "two", default=None))
    assert reason == "the repository has no default branch: name the environment's branches in the file"
    assert why_not(environment(branches=["one"]), commit("one", default=None)) is None


def test_only_a_moving_or_retired_release_begins_to_serve() -> None:
    """Traffic comes by promotion or by a rollback, and what lives is what holds its port."""
    into = {before for (before, _), after in RELEASE_TRANSITIONS.items() if after is ReleaseStatus.SERVING}
    assert into == MOVING | {ReleaseStatus.RETIRED}
    assert MOVING < LIVE
    assert ReleaseStatus.SERVING in LIVE
    assert not LIVE & {ReleaseStatus.RETIRED, ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK}


def test_where_a_release_answers() -> None:
    """At its environment's port on this machine, or where its health URL says when it is deployed elsewhere."""
    served: dict[str, Any] = {"port": 8800}
    hooked: dict[str, Any] = {"port": None, "deploy": {"health": "https://example.org/health"}}
    assert [is_hooked(spec) for spec in (served, hooked)] == [False, True]
    assert [address(spec) for spec in (served, hooked)] == ["http://127.0.0.1:8800", "https://example.org/health"]
    assert address({**served, "tls": {"certificate": "/a.pem", "key": "/a.key"}}) == "https://127.0.0.1:8800"
