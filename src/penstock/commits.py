"""Commits, changes, triggers and versions: what a run is made from."""

from dataclasses import dataclass
from enum import StrEnum


class Trigger(StrEnum):
    """Why a run was asked for."""

    PUSH = "push"
    PULL_REQUEST = "pull_request"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Change:
    """The paths that a commit touches against its first parent (all its paths for a root commit), sorted."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as a run sees it.

    `sha` is the full object name; `branch` the branch it was asked for by (None for a bare commit), `branches` all
    branches it is reachable from; `committed_at` is ISO 8601. A `dirty` commit is a snapshot of a working tree that
    nobody committed: it may be built and tested, never deployed.
    """

    sha: str
    branch: str | None
    branches: tuple[str, ...]
    default_branch: str | None
    author: str
    title: str
    committed_at: str
    dirty: bool = False

    @property
    def short(self) -> str:
        return self.sha[:7]
