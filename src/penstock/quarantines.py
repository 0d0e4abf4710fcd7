"""Quarantined tests: which failures of a report count, which do not for a while, and how the file names a test.

A quarantined test is run and shown like any other; until its day has passed its failure does not make the step red.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from penstock.parts import Quarantine
from penstock.reports import TestCase, TestReport

SHOWN = 3
"""Tests that a sentence names; the others are counted."""


_STOPS = re.compile(
    r"\bpy\.?test\b[^;&|\n]*\s-[a-wyz]*x[a-z]*(?![\w-])"
    r"|(?<!\S)(--(exitfirst|maxfail|bail|stop-on-failure|fail-?fast)|-failfast)(?![\w-])"
)


def stops_early(command: str) -> bool:
    """Whether a command seems to stop at a first failure, so that its report may lack others."""
    return _STOPS.search(command) is not None


def full_name(suite: str, name: str) -> str:
    """How a test is written: `SUITE::NAME`, or its name alone where it has no suite."""
    return f"{suite}::{name}" if suite else name


def is_named(wanted: str, full: str) -> bool:
    """Whether a text of the file means a test, which is given by its full name.

    `tests/test_a.py::TestB::test_c` is pytest's way to write what its reports call `tests.test_a.TestB::test_c`.
    Without `[…]` it means the test with all its parameters.
    """
    mine, found = _plain(wanted), _plain(full)
    return found == mine or ("[" not in wanted and found.startswith(f"{mine}["))


def _plain(text: str) -> str:
    """A name with dots alone between its parts; parameters stay as they are."""
    head, bracket, rest = text.partition("[")
    return re.sub(r"\.py(?=::|$)", "", head).replace("::", ".").replace("/", ".") + bracket + rest


def covering(quarantine: Sequence[Quarantine], full: str) -> Quarantine | None:
    """The entry that covers a test, of several the one that ends last; None where there is none."""
    found = [entry for entry in quarantine if is_named(entry.test, full)]
    return max(found, key=attrgetter("until"), default=None)


@dataclass(frozen=True, slots=True)
class Weighed:
    """The red tests of a report: those that count, those in quarantine, and whose quarantine is over.

    What is `over` counts and is among `counted` too. `total` is the number of all tests.
    """

    total: int
    counted: tuple[TestCase, ...]
    forgiven: tuple[tuple[TestCase, Quarantine], ...]
    over: tuple[tuple[TestCase, Quarantine], ...]

    @property
    def failure(self) -> str | None:
        """Which tests failed, in words, or None where none counts."""
        if not self.counted:
            return None
        quarantined = f" ({len(self.forgiven)} more in quarantine)" if self.forgiven else ""
        failed = f"{len(self.counted)} of {self.total} tests failed: {listed([c.name for c in self.counted])}"
        return "; ".join((f"{failed}{quarantined}", *map(_ended, self.over[:SHOWN])))

    @property
    def note(self) -> str | None:
        """Which failures are in quarantine, with whose and why, or None where none is."""
        if not self.forgiven:
            return None
        words = [f"{case.name} ({described(entry)})" for case, entry in self.forgiven]
        verb = "is" if len(words) == 1 else "are"
        return f"{len(words)} of {self.total} tests failed and {verb} in quarantine: {listed(words)}"


def weigh(report: TestReport, quarantine: Sequence[Quarantine], today: str) -> Weighed:
    """Tell the red tests of a report apart; `today` is a day as `2026-12-31`, and `until` the last one that helps."""
    red = [case for case in report.cases if case.status in {"failed", "errored"}]
    covered = list(_covered(red, quarantine))
    forgiven = tuple((case, entry) for case, entry in covered if today <= entry.until)
    free = {id(case) for case, _ in forgiven}
    return Weighed(
        total=len(report.cases),
        counted=tuple(case for case in red if id(case) not in free),
        forgiven=forgiven,
        over=tuple((case, entry) for case, entry in covered if today > entry.until),
    )


def _covered(red: Sequence[TestCase], quarantine: Sequence[Quarantine]) -> Iterator[tuple[TestCase, Quarantine]]:
    for case in red if quarantine else ():
        entry = covering(quarantine, full_name(case.suite, case.name))
        if entry is not None:
            yield case, entry


def described(entry: Quarantine) -> str:
    """Whose a quarantine is, until when, and why."""
    return f"{entry.owner}, until {entry.until}: {entry.reason}"


def _ended(pair: tuple[TestCase, Quarantine]) -> str:
    case, entry = pair
    return f"the quarantine of {case.name} ended on {entry.until} ({entry.owner}: {entry.reason})"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
