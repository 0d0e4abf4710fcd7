"""What the store gives out: frozen records of requests, runs, steps, attempts, releases and replicas.

A record is what was true at one moment; changing it is a transition through the store. There is one implementation
(`sql.py`): SQLAlchemy Core speaks to SQLite, and to Postgres when a team needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.approvals import ApprovalStatus, Pinned, Terms
from penstock.plans import StepKind
from penstock.quarantines import full_name
from penstock.releases import ReleaseStatus
from penstock.reports import Status
from penstock.runs import AttemptStatus, RequestStatus, RunStatus, StepStatus

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Follower:
    """Who waits for a request: a process named beyond doubt by pid, start time and boot id."""

    pid: int
    start_time: int
    boot_id: str


NOBODY = Follower(0, 0, "")
"""The follower of what nobody waits for: nothing new starts until `resume` or `serve` adopts it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person or trigger asked for. `result` is what came of it, `error` the sentence where it was refused."""

    id: int
    kind: str
    payload: Values
    follower: Follower
    actor: str
    status: RequestStatus
    result: Values | None
    error: str | None
    exit_code: int | None
    created: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a plan. `owner` is the follower for whom new steps may start."""

    id: int
    request: int
    project: str
    owner: Follower
    version: str
    commit: Values
    change: tuple[str, ...]
    trigger: str
    mirror: str
    pipeline: Values
    options: Values
    status: RunStatus
    reason: str | None
    notes: tuple[str, ...]
    package: str | None
    package_size: int | None
    created: float
    started: float | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    run: int
    name: str
    position: int
    kind: StepKind
    stage: str
    needs: tuple[str, ...]
    status: StepStatus
    reason: str | None
    cached: bool
    key: str | None
    ingredients: Values | None
    result: Values | None
    started: float | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a step. `detail` holds where its record, log and workspace lie, written before the start."""

    id: str
    run: int
    step: str
    number: int
    status: AttemptStatus
    reason: str | None
    exit_code: int | None
    detail: Values
    handle: Values | None
    log_end: int | None
    created: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Action:
    """The stored result of a step whose key is known.

    `scope` says who may read it: '' is trusted and read by all, any other is one untrusted source's own.
    """

    key: str
    project: str
    step: str
    run: int
    ingredients: Values
    result: Values
    seconds: float
    created: float
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Eviction:
    """A stored result that was removed on purpose: why (half a sentence), and when."""

    reason: str
    at: float

    @property
    def sentence(self) -> str:
        """Why a step has to run that has run before; the day is the reader's own."""
        day = datetime.fromtimestamp(self.at).astimezone().date().isoformat()
        return f"its earlier result was evicted on {day}: {self.reason}"


@dataclass(frozen=True, slots=True)
class PackageRecord:
    project: str
    version: str
    digest: str
    run: int
    passed: bool
    size: int
    lineage: Values
    created: float


@dataclass(frozen=True, slots=True)
class Target:
    """One environment of a run.

    `status` is queued, waiting (for approval), moving, released, skipped, refused, unapproved or errored.
    """

    run: int
    environment: str
    position: int
    status: str
    reason: str | None
    release: int | None


@dataclass(frozen=True, slots=True)
class Release:
    """A package in an environment. `spec` is all that its replicas need, so that they start without the run.

    `migration` is the number of the newest migration that was in force when it came up: the one that it was made for.
    `rollout` is how its rollout stands, or how it ended, as plain values; `watch` the same of the watch afterwards.
    """

    id: int
    project: str
    environment: str
    generation: int
    request: int
    run: int
    version: str
    package: str
    spec: Values
    actor: str
    status: ReleaseStatus
    reason: str | None
    phase: str | None
    fate: str | None
    replaced: int | None
    migration: int | None
    rollout: Values | None
    watch: Values | None
    created: float
    since: float | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class Approval:
    """What a person was asked to approve, and what they said.

    `request` is that of the run; `decision` the request that approved or refused it, by whose word (`decided_by`) and
    when; `reason` theirs, or why it is void, as words after "because".
    """

    id: int
    project: str
    run: int
    request: int
    pinned: Pinned
    terms: Terms
    status: ApprovalStatus
    decision: int | None
    decided_by: str | None
    decided: float | None
    reason: str | None
    created: float

    @property
    def environment(self) -> str:
        return self.pinned.environment

    @property
    def until(self) -> str:
        """When it expires; day and hour are the reader's own."""
        return _minute(self.terms.expires)

    @property
    def sentence(self) -> str:
        """Where it stands, as the end of a sentence about the release."""
        match self.status:
            case ApprovalStatus.PENDING:
                way = f"penstock approve {self.run} {self.environment}"
                return f"waits for approval ({self.terms.whom}) until {self.until}: {way}"
            case ApprovalStatus.EXPIRED:
                return f"nobody approved it until {self.until}"
            case ApprovalStatus.VOID:
                return f"its approval is void, because {self.reason}"
        said = "refused" if self.status is ApprovalStatus.REFUSED else "approved"
        why = f": {self.reason}" if self.reason else ""
        return f"{said} by {self.decided_by} on {_minute(self.decided or 0.0)}{why}"


def _minute(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class ReleaseEvent:
    """One recorded transition of a release. `detail` is the reason, where there was one."""

    at: float
    release: int
    event: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class DriftLook:
    """One look: its number since the release serves, its rows, the features that drifted, and the sentence.

    `features` has of each its name, psi, chance and p; empty for an old look. `at` is in seconds since the epoch.
    """

    release: int
    number: int
    at: float
    rows: int
    drifted: Sequence[str]
    sentence: str
    features: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Replica:
    id: str
    release: int
    number: int
    port: int
    handle: Values | None
    status: str
    created: float
    ended: float | None
    gpus: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    identity: str
    file: str
    location: str


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """What a package answered on a test set, in a step of this name.

    `collected` is the digest of the tree in the cache that holds the evidence's files, `files` their names in it, by
    role. `number` says which package of the project was decided on this test set, from 1.
    """

    project: str
    step: str
    test_set: str
    package: str
    run: int
    files: Values
    collected: str
    number: int
    created: float


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """One attempt of a step that left test results. `inputs` names all that they ran on: equal names, equal inputs.

    `scope` is that of the run, as of an `Action`; `id` is 0 before the report is kept.
    """

    id: int
    project: str
    step: str
    scope: str
    run: int
    attempt: int
    inputs: str
    created: float


@dataclass(frozen=True, slots=True)
class TestRecord:
    """One test of a report. `test` numbers it within its step; `quarantined` says that its failure did not count."""

    __test__ = False  # pytest collects classes by this name

    test: int
    suite: str
    name: str
    status: Status
    seconds: float
    message: str
    quarantined: bool

    @property
    def full_name(self) -> str:
        return full_name(self.suite, self.name)
