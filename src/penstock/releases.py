"""Environments, releases and replicas: the transition table of a release, and which one may come next."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from penstock.commits import Commit
from penstock.errors import TransitionError
from penstock.pipelines import Environment, branch_matches


class ReleaseStatus(StrEnum):
    STARTING = "starting"
    PROBING = "probing"
    CANARY = "canary"
    SERVING = "serving"
    DRAINING = "draining"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


RELEASE_TRANSITIONS: Mapping[tuple[ReleaseStatus, str], ReleaseStatus] = {
    (ReleaseStatus.STARTING, "promote"): ReleaseStatus.SERVING,
    (ReleaseStatus.STARTING, "reject"): ReleaseStatus.REJECTED,
    (ReleaseStatus.STARTING, "probe"): ReleaseStatus.PROBING,
    (ReleaseStatus.STARTING, "widen"): ReleaseStatus.CANARY,
    (ReleaseStatus.PROBING, "promote"): ReleaseStatus.SERVING,
    (ReleaseStatus.PROBING, "reject"): ReleaseStatus.REJECTED,
    (ReleaseStatus.PROBING, "widen"): ReleaseStatus.CANARY,
    (ReleaseStatus.CANARY, "widen"): ReleaseStatus.CANARY,
    (ReleaseStatus.CANARY, "promote"): ReleaseStatus.SERVING,
    (ReleaseStatus.CANARY, "withdraw"): ReleaseStatus.DRAINING,
    (ReleaseStatus.SERVING, "replace"): ReleaseStatus.DRAINING,
    (ReleaseStatus.SERVING, "stop"): ReleaseStatus.RETIRED,
    (ReleaseStatus.DRAINING, "retire"): ReleaseStatus.RETIRED,
    (ReleaseStatus.DRAINING, "roll_back"): ReleaseStatus.ROLLED_BACK,
    (ReleaseStatus.RETIRED, "restore"): ReleaseStatus.SERVING,
}

MOVING = frozenset({ReleaseStatus.STARTING, ReleaseStatus.PROBING, ReleaseStatus.CANARY})
"""On the way to serve: at most one release of an environment is."""

LIVE = frozenset({ReleaseStatus.STARTING, ReleaseStatus.PROBING, ReleaseStatus.CANARY, ReleaseStatus.SERVING})


def after_release(status: ReleaseStatus, event: str) -> ReleaseStatus:
    """The status that follows; raises TransitionError for an event that the table does not allow."""
    try:
        return RELEASE_TRANSITIONS[status, event]
    except KeyError:
        raise TransitionError(f"a release that is {status} cannot {event}") from None


def is_hooked(spec: Mapping[str, Any]) -> bool:
    """Whether a release of this spec is deployed by commands of the user's, and not served by Penstock itself."""
    return "deploy" in spec


def address(spec: Mapping[str, Any]) -> str:
    """Where a release of this spec answers: its environment's address, or the health URL of what is elsewhere."""
    if is_hooked(spec):
        return str(spec["deploy"]["health"])
    return f"{'https' if 'tls' in spec else 'http'}://127.0.0.1:{spec['port']}"


@dataclass(frozen=True, slots=True)
class Frozen:
    """An environment that takes no release: by whose word, why, since when (seconds since the epoch)."""

    by: str
    reason: str
    at: float
    request: int

    def sentence(self, environment: str) -> str:
        """Why nothing is released there."""
        return f"{environment} is frozen by {self.by}: {self.reason}"


def why_not(environment: Environment, commit: Commit) -> str | None:
    """Why a commit may not be released to an environment, or None where it may.

    A commit is on a branch if it is reachable from its tip; without `branches` only the default branch is released.
    """
    if commit.dirty:
        return "a working tree that nobody committed is never deployed"
    if environment.branches is None:
        if commit.default_branch is None:
            return "the repository has no default branch: name the environment's branches in the file"
        wanted: tuple[str, ...] = (commit.default_branch,)
    else:
        wanted = environment.branches
    if any(branch_matches(pattern, branch) for pattern in wanted for branch in commit.branches):
        return None
    return f"commit {commit.short} is not on {' or '.join(wanted)}"
