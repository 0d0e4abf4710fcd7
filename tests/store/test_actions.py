"""Results by key and scope, and what is remembered of those that were evicted."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import penstock.store
from penstock.store.contract import Action
from penstock.store.sql import Store, open_store

TRAINED = Action("k1", "p1", "train", 1, {"inputs": "i"}, {"outputs": "o"}, 2.0, 100.0)
THEIRS = replace(TRAINED, scope="fork", result={"outputs": "theirs"}, created=300.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "penstock.db") as opened:
        yield opened


# --- scopes --------------------------------------------------------------------------------------------------------


def test_a_trusted_run_reads_no_other_scope(store: Store) -> None:
    """What an untrusted run stored is not there for a trusted one, nor for another untrusted source."""
    store.actions.put(THEIRS)
    assert store.actions.find("k1") is None
    assert store.actions.find("k1", "other") is None
    assert store.actions.newest("p1", "train") is None
    assert store.actions.find("k1", "fork") == THEIRS
    assert store.actions.newest("p1", "train", "fork") == THEIRS


def test_an_untrusted_run_reads_what_is_trusted_first(store: Store) -> None:
    """A trusted result goes before one of the run's own scope, which neither replaces nor hides it."""
    store.actions.put(TRAINED)
    assert store.actions.find("k1", "fork") == TRAINED
    store.actions.put(THEIRS)
    assert store.actions.find("k1", "fork") == TRAINED
    assert store.actions.find("k1") == TRAINED
    assert store.actions.newest("p1", "train", "fork") == THEIRS
    assert store.actions.newest("p1", "train") == TRAINED


def test_a_result_is_forgotten_and_used_in_its_own_scope(store: Store) -> None:
    """Forgetting or using a result leaves the other scope's alone."""
    store.actions.put(TRAINED)
    store.actions.put(THEIRS)
    store.actions.used("k1", "fork")
    assert [action.scope for action, _ in store.actions.all()] == ["", "fork"]
    store.actions.forget("k1")
    assert store.actions.find("k1", "fork") == THEIRS
    store.actions.put(TRAINED)
    store.actions.forget("k1", "fork")
    assert store.actions.find("k1", "fork") == TRAINED


# --- evictions -----------------------------------------------------------------------------------------------------


def test_an_eviction_says_why_and_when(store: Store) -> None:
    """A result that was evicted is gone, and its key leads to the reason, the day and a sentence."""
    store.actions.put(TRAINED)
    noon = datetime(2026, 3, 4, 12).astimezone().timestamp()
    store.actions.evict([TRAINED], "the cache was over its cap of 20 GiB", noon)
    assert store.actions.find("k1") is None
    eviction = store.actions.eviction("k1")
    assert eviction is not None
    assert eviction.at == noon
    assert eviction.sentence == "its earlier result was evicted on 2026-03-04: the cache was over its cap of 20 GiB"
    assert store.actions.eviction("k2") is None


def test_the_newest_eviction_that_may_be_read_counts(store: Store) -> None:
    """A second eviction replaces the first; another scope's is not told; losing the bytes later is no eviction."""
    store.actions.evict([TRAINED], "first", 1.0)
    store.actions.evict([TRAINED], "second", 2.0)
    store.actions.evict([THEIRS], "theirs", 3.0)
    assert getattr(store.actions.eviction("k1"), "reason", None) == "second"
    assert getattr(store.actions.eviction("k1", "fork"), "reason", None) == "theirs"
    store.actions.forget("k1")
    assert store.actions.eviction("k1") is None


def test_old_evictions_are_forgotten(store: Store) -> None:
    """What was evicted long ago is not kept for ever."""
    store.actions.evict([TRAINED], "old", 1.0)
    store.actions.evict([replace(TRAINED, key="k2")], "new", 9.0)
    store.actions.forget_evictions(5.0)
    assert store.actions.eviction("k1") is None
    assert store.actions.eviction("k2") is not None


# --- the migration -------------------------------------------------------------------------------------------------


def test_results_of_an_older_home_are_trusted(tmp_path: Path) -> None:
    """A home from before scopes keeps its results, all of them in the trusted scope."""
    path = tmp_path / "penstock.db"
    config = Config()
    config.set_main_option("script_location", str(Path(penstock.store.__file__).with_name("schema")))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    engine.dispose()
    database = sqlite3.connect(path)
    with database:
        row = ("k1", "p1", "train", 1, '{"inputs": "i"}', '{"outputs": "o"}', 2.0, 100.0, 100.0)
        database.execute("INSERT INTO actions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.close()
    with open_store(path) as store:
        assert store.actions.find("k1") == TRAINED
