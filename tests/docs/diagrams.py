"""Transition tables as text, for `docs/architecture.md`; run as a program it prints them all."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from penstock.approvals import APPROVAL_TRANSITIONS, ApprovalStatus
from penstock.migrations import MIGRATION_TRANSITIONS, MigrationStatus
from penstock.releases import RELEASE_TRANSITIONS, ReleaseStatus
from penstock.runs import (
    ATTEMPT_TRANSITIONS,
    RUN_TRANSITIONS,
    STEP_TRANSITIONS,
    AttemptStatus,
    RunStatus,
    StepStatus,
)

Table = Mapping[tuple[Any, str], StrEnum]

TABLES: Mapping[str, tuple[type[StrEnum], Table]] = {
    "A run": (RunStatus, RUN_TRANSITIONS),
    "A step": (StepStatus, STEP_TRANSITIONS),
    "An attempt": (AttemptStatus, ATTEMPT_TRANSITIONS),
    "A release": (ReleaseStatus, RELEASE_TRANSITIONS),
    "An approval": (ApprovalStatus, APPROVAL_TRANSITIONS),
    "A migration": (MigrationStatus, MIGRATION_TRANSITIONS),
}


def diagram(statuses: type[StrEnum], table: Table) -> str:
    """One line per transition, grouped by the status that it leaves; then where it ends, and what is not reached."""
    reached = {next(iter(statuses)), *table.values()}
    lines = [line for status in statuses for line in _leaving(status, table)]
    ends = [status for status in statuses if status in reached and not any(before == status for before, _ in table)]
    later = [status for status in statuses if status not in reached]
    lines.append(f"{'ends:':<12}{', '.join(ends) or 'none'}")
    if later:
        lines.append(f"{'later:':<12}{', '.join(later)}")
    return "\n".join(lines)


def _leaving(status: StrEnum, table: Table) -> list[str]:
    found = [(event, after) for (before, event), after in table.items() if before == status]
    return [
        f"{'' if i else status:<12}── {event} ".ljust(29, "─") + f"→ {after}" for i, (event, after) in enumerate(found)
    ]


if __name__ == "__main__":
    for name, (statuses, table) in TABLES.items():
        print(f"{name}\n{diagram(statuses, table)}\n")  # noqa: T201 (its purpose)
