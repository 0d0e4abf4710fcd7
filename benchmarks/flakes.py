"""How often tests are called flaky that are and that are not, and what it costs to keep each test of a step.

`labels` draws histories of tests that fail by chance; `keeping` puts reports of many tests into a new database, as a
step does in its own transaction, until old ones have to go.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from statistics import median

from penstock.flakes import Observation, flakiness
from penstock.plans import PlannedStep, StepKind
from penstock.reports import TestCase, TestReport
from penstock.store.cases import KEPT
from penstock.store.contract import NOBODY, Project, ReportRecord
from penstock.store.sql import Store, open_store

PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
AFTER = (10, 20, 30, 50)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("labels", "keeping"))
    parser.add_argument("--tests", type=int, default=4000, help="tests of each kind (labels)")
    parser.add_argument("--cases", type=int, default=100_000, help="tests of a report (keeping)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    labels(asked.tests, asked.seed) if asked.what == "labels" else keeping(asked.cases)


def labels(tests: int, seed: int) -> None:
    """The share of tests that have the label after so many results, and that ever had it."""
    dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
    print(f"{'fails':>8}{'flips':>8}" + "".join(f"{f'after {n}':>10}" for n in AFTER) + f"{'ever':>10}")
    for rate in (0.001, 0.002, 0.005, 0.01, 0.026, 0.1127, 0.276, 0.5):
        found = [labelled(dice, rate) for _ in range(tests)]
        shares = [sum(one[column] for one in found) / tests for column in range(len(AFTER) + 1)]
        print(f"{rate:>8.2%}{2 * rate * (1 - rate):>8.1%}" + "".join(f"{share:>10.2%}" for share in shares))


def labelled(dice: random.Random, rate: float) -> list[bool]:
    """Whether a test that fails at this rate has the label after each number of results, and ever."""
    red = [dice.random() < rate for _ in range(AFTER[-1])]
    seen = [Observation(n, 1, "k", "failed" if is_red else "passed", 0.0) for n, is_red in enumerate(red)]
    if not any(red):
        return [False] * (len(AFTER) + 1)
    flaky = [flakiness(seen[:n]).is_flaky for n in range(1, len(seen) + 1)]
    return [*(flaky[n - 1] for n in AFTER), any(flaky)]


def keeping(count: int) -> None:
    """Seconds for each report, bytes of the database, and seconds to find what may be flaky."""
    names = [(f"tests.module_{n // 100}.TestGroup", f"test_something[value-{n}]") for n in range(count)]
    cases = tuple(
        TestCase(name, suite, "failed" if n % 1000 == 0 else "passed", 0.01) for n, (suite, name) in enumerate(names)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "penstock.db"
        with open_store(path) as store:
            store.runs.project(PROJECT)
            taken = [keep(store, TestReport(cases)) for _ in range(KEPT + 5)]
            begin = time.perf_counter()
            found = store.cases.suspects(PROJECT.id, "unit")
            histories = store.cases.observations(PROJECT.id, "unit", found)
            asked = time.perf_counter() - begin
        size = path.stat().st_size
    print(f"{count:,} tests: {median(taken[:KEPT]):.2f} s a report, {median(taken[KEPT:]):.2f} s where an old one goes")
    print(f"{KEPT} reports: {size >> 20} MiB; histories of {len(histories)} suspects in {asked:.2f} s")


def keep(store: Store, report: TestReport) -> float:
    """Seconds to keep a report in a run of its own."""
    request = store.requests.add("run", {}, NOBODY, "benchmark")
    texts = {"version": "0.1", "trigger": "manual", "mirror": "m"}
    values = {"commit": {}, "change": [], "pipeline": {}, "options": {}, "notes": [], **texts}
    plan = (PlannedStep("check", StepKind.CHECK, "build", ()),)
    run = store.runs.add({"request": request, "project": PROJECT.id, "owner": NOBODY, **values}, plan, ())
    begin = time.perf_counter()
    with store.transaction():
        store.cases.put(ReportRecord(0, PROJECT.id, "unit", "", run, 1, "k", 0.0), report)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
