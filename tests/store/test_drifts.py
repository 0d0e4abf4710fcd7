"""Looks for drift in a real SQLite file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.store.contract import DriftLook, Follower, Project
from penstock.store.drifts import KEPT
from penstock.store.sql import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "penstock.db") as made:
        made.runs.project(Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits"))
        yield made


@pytest.fixture
def release(store: Store) -> int:
    request = store.requests.add("deploy", {}, Follower(1, 1, "boot"), "ada")
    values: dict[str, Any] = {"project": "p1", "environment": "production", "generation": 1, "request": request}
    more = {"run": 0, "version": "0.1", "package": "ab", "spec": {"port": 1}, "actor": "ada"}
    return store.releases.add({**values, **more}).id


def look(release: int, number: int, *drifted: str) -> DriftLook:
    features = [{"name": "x", "psi": 0.1, "chance": 0.1, "p": 0.5}]
    return DriftLook(release, number, 0.0, 100, list(drifted), "no drift", features)


def test_looks_are_counted_and_the_last_one_is_shown(store: Store, release: int) -> None:
    """By release; a look that is there already is not kept again."""
    assert (store.drifts.count(release), store.drifts.newest(release)) == (0, None)
    assert store.drifts.add(look(release, 1))
    assert store.drifts.add(look(release, 2, "x"))
    assert not store.drifts.add(look(release, 2))
    found = store.drifts.newest(release)
    assert found is not None
    assert (found.number, found.drifted, found.at > 0) == (2, ["x"], True)
    assert store.drifts.count(release) == 2


def test_only_looks_that_showed_drift_are_detections(store: Store, release: int) -> None:
    """Oldest first."""
    for number, drifted in enumerate([(), ("x",), (), ("x", "y")], start=1):
        store.drifts.add(look(release, number, *drifted))
    assert [found.number for found in store.drifts.detections(release)] == [2, 4]
    assert store.drifts.detections(release + 1) == []


def test_features_of_old_looks_are_let_go(store: Store, release: int) -> None:
    """A home that is watched for years keeps what was said, not every figure."""
    with store.transaction():
        for number in range(1, KEPT + 3):
            store.drifts.add(look(release, number, "x"))
    kept = [bool(found.features) for found in store.drifts.detections(release)]
    assert kept == [False, False] + [True] * KEPT
