"""Baselines in the store: which runs may become one, where they come from, and what became of fixed numbers."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.event import listen
from sqlalchemy.exc import IntegrityError

from penstock.baselines import Change, Origin
from penstock.plans import PlannedStep, StepKind
from penstock.store.contract import NOBODY, Project
from penstock.store.sql import Store, open_store

PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
PLAN = (PlannedStep("check", StepKind.CHECK, "build", ()),)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "penstock.db") as opened:
        opened.runs.project(PROJECT)
        yield opened


def add_run(
    store: Store, sha: str = "a", version: str = "0.1", *, dirty: bool = False, end: str = "pass", **o: Any
) -> int:
    """A run of a commit that ended so; `o` are its options."""
    version = store.runs.freeze_version(PROJECT.id, sha, version)
    values: dict[str, Any] = {
        "request": store.requests.add("run", {}, NOBODY, "ada"),
        "project": PROJECT.id,
        "owner": NOBODY,
        "version": version,
        "commit": {"sha": sha, "branches": ["main"], "dirty": dirty},
        "change": [],
        "trigger": "manual",
        "mirror": "m",
        "pipeline": {"name": "x" * 5000},
        "options": {"step": None, **o},
        "notes": [],
    }
    number = store.runs.add(values, PLAN, ())
    for event in ("start", end) if end else ():
        store.runs.move(number, event)
    return number


def test_only_sound_runs_may_become_a_baseline(store: Store) -> None:
    """Red, errored and canceled runs, those of working trees, of strangers, of one step, and open ones never do."""
    good = add_run(store)
    for end in ("fail", "error", "cancel", "supersede", ""):
        add_run(store, end=end)
    add_run(store, dirty=True)
    add_run(store, scope="a stranger's")
    add_run(store, step="train")
    assert [c.run for c in store.baselines.sound(PROJECT.id, 99)] == [good]
    assert [c.flaw for c in store.baselines.any(PROJECT.id, 99)] == [
        "was of step train only",
        "is of an untrusted change",
        "is of a dirty working tree",
        "has not ended",
        "was superseded",
        "was canceled",
        "errored",
        "failed",
        None,
    ]


def test_the_newest_come_first_and_a_commit_may_be_left_out(store: Store) -> None:
    """Only runs below a number count, and none of the commit that is compared itself."""
    runs = [add_run(store, sha) for sha in "aabbcc"]
    found = store.baselines.sound(PROJECT.id, 2, below=runs[-1], other_than="b")
    assert [(c.run, c.sha, c.branches) for c in found] == [(runs[4], "c", ("main",)), (runs[1], "a", ("main",))]
    assert store.baselines.sound("another", 9) == []


def test_a_version_is_named_in_full_or_without_its_local_part_or_by_a_tag(store: Store) -> None:
    """`1.0.dev1` is `1.0.dev1+gabc` and not `1.0.dev10+gabc`; a tag that came later names the commit."""
    first = add_run(store, "a", "1.0.dev1+ga")
    add_run(store, "b", "1.0.dev10+gb")
    red = add_run(store, "a", end="fail")

    def found(version: str, *shas: str) -> list[int]:
        return [c.run for c in store.baselines.of_version(PROJECT.id, version, shas)]

    assert found("1.0.dev1") == found("1.0.dev1+ga") == found("1.0", "a") == [first, red]
    assert found("1.0") == found("1.0.dev1+g") == []
    assert store.baselines.of_version(PROJECT.id, "1.0.dev1", below=first) == []


def test_looks_go_by_an_index(store: Store, tmp_path: Path) -> None:
    """However many runs a home has, none of its other projects' is read, and of versions none but the named."""
    asked: list[tuple[str, Any]] = []
    listen(
        store._connection.engine, "before_cursor_execute", lambda _c, _u, text, values, *_: asked.append((text, values))
    )
    add_run(store, version="1.0")
    asked.clear()
    store.baselines.sound(PROJECT.id, 50, below=9, other_than="a")
    store.baselines.of_version(PROJECT.id, "1.0", ["a"])
    with closing(sqlite3.connect(tmp_path / "penstock.db")) as other:
        plans = [" ".join(row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {text}", v)) for text, v in list(asked)]
    used = ["runs_by_project", "versions_by_version", "runs_by_version", "runs_by_version"]
    assert [index in plan for index, plan in zip(used, plans, strict=True)] == [True] * 4, plans


def test_where_a_run_comes_from_is_kept(store: Store) -> None:
    """Data, hardware and seeds are as they were kept last; nothing is known of a run that kept none."""
    run = add_run(store)
    assert store.baselines.origin(run) is None
    for seed in ("0", "1"):
        store.baselines.keep_origin(run, Origin({"train": "d"}, {"cpus": 4, "gpus": ["a100"]}, {"SEED": seed}))
    assert store.baselines.origin(run) == Origin({"train": "d"}, {"cpus": 4, "gpus": ["a100"]}, {"SEED": "1"})


def change(store: Store, gate: str = "g", **fields: Any) -> Change:
    request = store.requests.add("approve", {}, NOBODY, "ada")
    return replace(Change(gate, "set", 0.9, None, "a paper", None, None, None, request, "ada", 5.0), **fields)


def test_changes_of_fixed_numbers_are_appended(store: Store) -> None:
    """They are given oldest first, of one gate or of all; a request makes no second one for a gate."""
    made = [change(store), change(store, "other", run=add_run(store)), change(store, event="approved", value=0.8)]
    for one in made:
        store.baselines.record(PROJECT.id, one)
    assert store.baselines.changes(PROJECT.id) == made
    assert store.baselines.changes(PROJECT.id, "g") == [made[0], made[2]]
    with pytest.raises(IntegrityError):
        store.baselines.record(PROJECT.id, made[2])


def test_the_first_run_of_a_commit(store: Store) -> None:
    """Whatever became of it; another commit's does not count, and there may be none."""
    first = add_run(store, "a", "1.0", end="fail")
    add_run(store, "b", "1.0")
    add_run(store, "a", "1.0")
    assert store.baselines.first_run(PROJECT.id, "1.0", "a") == first
    assert store.baselines.first_run(PROJECT.id, "1.0", "c") == store.baselines.first_run("p2", "1.0", "a") == 0
