"""The sheet of a run: everything that a report shows, as one value; pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.flips import Flips
from penstock.runs import RunView, TestView


@dataclass(frozen=True, slots=True)
class StepTests:
    """What the report of a step's tests came to; `reason` says which failed, in words."""

    step: str
    passed: int
    failed: int
    errored: int
    skipped: int
    reason: str | None = None

    @property
    def total(self) -> int:
        return self.passed + self.failed + self.errored + self.skipped


@dataclass(frozen=True, slots=True)
class Opponent:
    """The run whose evidence this run's is held against, and what it is to it."""

    run: int
    version: str
    role: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A run with the run before, whose metrics stand beside its own, and with what its evidence is held against.

    `lineage` is what was recorded of the package, empty where there is none; `gaps` say what could not be compared.
    """

    view: RunView
    before: RunView | None = None
    tests: tuple[StepTests, ...] = ()
    opponent: Opponent | None = None
    evidence: tuple[Flips, ...] = ()
    gaps: tuple[str, ...] = ()
    lineage: Mapping[str, Any] | None = None

    def as_json(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The documented object of `report --json`: that of the run, and what the report adds to it."""
        before = self.before
        return {
            **run,
            "before": None
            if before is None
            else {"run": int(before.run), "version": before.version, "metrics": dict(before.metrics)},
            "test_counts": [asdict(counts) for counts in self.tests],
            "against": None if self.opponent is None else asdict(self.opponent),
            "evidence": [flips.as_json() for flips in self.evidence],
            "gaps": list(self.gaps),
        }


def note_on(test: TestView) -> str:
    """What a person should know of a test that failed, beside its message: whether it is flaky, or in quarantine."""
    return "; ".join(filter(None, (test.flaky, test.quarantine)))


def first_line(text: str) -> str:
    """The first line of a text that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
