"""Migrations of environments, freezes and the history of releases in a real SQLite file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

import penstock.store.sql
from penstock.errors import TransitionError
from penstock.migrations import Migration, MigrationStatus
from penstock.releases import Frozen
from penstock.store.contract import Follower, Project, Release
from penstock.store.sql import Store, open_store

PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "penstock.db") as made:
        made.runs.project(PROJECT)
        yield made


def add_release(store: Store, environment: str = "production") -> Release:
    request = store.requests.add("deploy", {}, Follower(1, 1, "boot"), "ada")
    values: dict[str, Any] = {"project": "p1", "environment": environment, "generation": 1, "request": request}
    more = {"run": 0, "version": "0.1", "package": "ab", "spec": {"port": 1}, "actor": "ada"}
    return store.releases.add({**values, **more})


def begin(store: Store, release: Release, **fields: Any) -> Migration:
    values: dict[str, Any] = {
        "project": release.project,
        "environment": release.environment,
        "generation": 1,
        "release": release.id,
        "package": release.package,
        "version": release.version,
        "contract": False,
        "reverts": None,
        "log": "log",
        "record": "record",
        "actor": "ada",
        "began": 1.0,
    }
    return store.migrations.begin({**values, **fields})


def test_a_migration_from_intent_to_end(store: Store) -> None:
    """It runs, has a process, and ends with its reason; what is over is running no more."""
    release = add_release(store)
    made = begin(store, release)
    assert (made.status, made.handle, made.ended) == (MigrationStatus.RUNNING, None, None)
    store.migrations.note(made.id, {"pid": 7})
    assert [m.handle for m in store.migrations.running()] == [{"pid": 7}]
    store.migrations.move(made.id, "fail", "exit code 1")
    (found,) = store.migrations.of("p1", "production")
    assert (found.status, found.reason, found.ended is not None) == (MigrationStatus.FAILED, "exit code 1", True)
    assert store.migrations.running() == []
    assert store.migrations.of_release(release.id) == [found]
    assert store.migrations.of("p1", "staging") == store.migrations.running("p1", "production") == []


def test_an_illegal_move_changes_nothing(store: Store) -> None:
    """What failed does not pass, and what is reverted keeps when and how it had ended."""
    release = add_release(store)
    failed, passed = begin(store, release), begin(store, release)
    store.migrations.move(failed.id, "fail", "exit code 1")
    with pytest.raises(TransitionError):
        store.migrations.move(failed.id, "pass")
    store.migrations.move(passed.id, "pass")
    ended = store.migrations.get(passed.id).ended
    store.migrations.move(passed.id, "revert", "undone by ada")
    found = store.migrations.get(passed.id)
    assert (found.status, found.reason, found.ended) == (MigrationStatus.REVERTED, None, ended)


def test_a_freeze_is_kept_beside_the_generation(store: Store) -> None:
    """Before the environment's first release as well as after it; a lift leaves nothing of it."""
    frozen = Frozen("ada", "the audit", 1.0, 7)
    store.releases.freeze("p1", "production", frozen)
    assert store.releases.advance("p1", "production", 3)
    assert (store.releases.frozen("p1", "production"), store.releases.generation("p1", "production")) == (frozen, 3)
    assert store.releases.frozen("p1", "staging") is None
    store.releases.unfreeze("p1", "production", "bob")
    assert (store.releases.frozen("p1", "production"), store.releases.generation("p1", "production")) == (None, 3)
    with pytest.raises(TransitionError, match="production is not frozen"):
        store.releases.unfreeze("p1", "production", "bob")


def test_the_transitions_of_releases(store: Store) -> None:
    """Of the releases that are asked for, oldest first, with the reason where there was one."""
    one, other = add_release(store), add_release(store, "staging")
    store.releases.move(other.id, "promote")
    store.releases.move(one.id, "reject", reason="it is bad")
    found = [(e.release, e.event, e.detail) for e in store.releases.events([one.id])]
    assert found == [(one.id, "add", None), (one.id, "reject", "it is bad")]
    assert store.releases.events([]) == []


def test_a_home_from_before_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its releases were made for no migration, and its environments are not frozen."""
    path = tmp_path / "penstock.db"
    config = Config()
    config.set_main_option("script_location", str(Path(penstock.store.sql.__file__).with_name("schema")))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.execute(text("INSERT INTO projects VALUES ('p1', 'digits', 'd', 'penstock.yaml', 'd', 1.0)"))
        connection.execute(text("INSERT INTO environments VALUES ('p1', 'production', 4)"))
        connection.execute(
            text(
                "INSERT INTO releases (project, environment, generation, request, run, version, package, spec, actor,"
                " status, created) VALUES ('p1', 'production', 4, 4, 1, '0.1', 'ab', '{}', 'ada', 'serving', 1.0)"
            )
        )
    engine.dispose()
    with open_store(path) as store:
        (release,) = store.releases.of()
        assert (release.version, release.migration) == ("0.1", None)
        assert store.releases.generation("p1", "production") == 4
        assert store.releases.frozen("p1", "production") is None
