"""Which migrations are in force, whether one has to run, and what a way back crosses."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import TransitionError
from penstock.migrations import (
    MIGRATION_TRANSITIONS,
    Migration,
    MigrationStatus,
    after_migration,
    applied,
    crossed,
    in_force,
    is_late,
    newest,
    why_not_back,
)

PASSED, FAILED, REVERTED = MigrationStatus.PASSED, MigrationStatus.FAILED, MigrationStatus.REVERTED


def migration(number: int, status: MigrationStatus = PASSED, **fields: Any) -> Migration:
    values: dict[str, Any] = {
        "project": "p",
        "environment": "production",
        "generation": number,
        "release": number,
        "package": f"package {number}",
        "version": f"0.{number}",
        "contract": False,
        "reverts": None,
        "reason": None,
        "log": "log",
        "record": "record",
        "handle": None,
        "actor": "ada",
        "began": 0.0,
        "created": 0.0,
        "ended": None,
    }
    return Migration(**{**values, "id": number, "status": status, **fields})


HISTORIES = st.lists(st.tuples(st.sampled_from([*MigrationStatus]), st.booleans()), max_size=8).map(
    lambda drawn: [migration(n, s, contract=c) for n, (s, c) in zip(count(1), drawn, strict=False)]
)


@given(HISTORIES)
def test_what_passed_is_in_force(known: list[Migration]) -> None:
    """In force is what passed, oldest first; each of these is applied, and nothing else is."""
    assert [m.id for m in in_force(known)] == [m.id for m in known if m.status is PASSED]
    assert {m.id for m in known if applied(known, m.package) is not None} == {m.id for m in in_force(known)}
    assert newest(known) == max((m.id for m in in_force(known)), default=None)


@given(HISTORIES, st.none() | st.integers(0, 9))
def test_a_way_back_crosses_what_came_after(known: list[Migration], made_for: int | None) -> None:
    """Crossed is what is in force and newer than the one that the release was made for, newest first."""
    found = crossed(known, made_for)
    assert found == sorted(found, key=lambda m: -m.id)
    assert {m.id for m in found} == {m.id for m in in_force(known) if m.id > (made_for or 0)}
    assert crossed(known, newest(known)) == []


def test_a_way_down_is_no_migration_in_force() -> None:
    """What reverted another counts for nothing itself, and what was reverted has to run again."""
    known = [migration(1), migration(2, REVERTED), migration(3, package="package 2", reverts=2)]
    assert [m.id for m in in_force(known)] == [1]
    assert applied(known, "package 2") is None


def test_only_a_contract_forbids_the_way_back() -> None:
    """Code goes back across what only added; across a contract it does not, and is told whose, and what to do."""
    assert why_not_back("production", [migration(2), migration(1)], "do this") is None
    assert why_not_back("production", [], "do this") is None
    assert why_not_back("production", [migration(3), migration(2, contract=True)], "do this") == (
        "production was migrated for 0.2, whose file marks the migration contract: "
        "code from before may not work on it; do this"
    )


def test_an_older_command_does_not_migrate_after_a_newer_one() -> None:
    """Whatever became of the newer one's migration."""
    assert is_late([migration(5, FAILED)], 4)
    assert not is_late([migration(5)], 5)
    assert not is_late([], 1)


def test_the_table_allows_nothing_else() -> None:
    """Every pair of status and event that it does not have is refused."""
    for status in MigrationStatus:
        for event in ("pass", "fail", "lose", "revert"):
            if (status, event) in MIGRATION_TRANSITIONS:
                assert after_migration(status, event) is MIGRATION_TRANSITIONS[status, event]
            else:
                with pytest.raises(TransitionError, match=f"a migration that is {status} cannot {event}"):
                    after_migration(status, event)
