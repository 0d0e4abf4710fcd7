"""A real Alembic project, on SQLite and on PostgreSQL: migrated before the switch, else the old release serves."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from acceptance.schema import DOWN, UP, asked, database, revision, with_schema
from acceptance.tiny import Tiny, sentence

AGE = ("ALTER TABLE people ADD COLUMN age INTEGER", "UPDATE people SET age = 36")
NO_AGE = ("ALTER TABLE people DROP COLUMN age",)
WITH_AGE = "SELECT name, age FROM people"
TABLES = (*AGE, "CREATE TABLE secrets (word VARCHAR(9))")


@pytest.fixture
def migrated(tiny: Tiny) -> Tiny:
    """The first revision, on SQLite, in production."""
    with_schema(
        tiny, f"variables: {{DATABASE: {database(tiny)}}}", f"{{run: {UP}, timeout: 30s}}, migrate_down: {DOWN}"
    )
    tiny("run")
    return tiny


def release_of(run: dict[str, Any]) -> dict[str, Any]:
    (found,) = run["releases"]
    assert isinstance(found, dict)
    return found


def columns(tiny: Tiny) -> list[str]:
    """The columns of the table as it is now."""
    with closing(sqlite3.connect(database(tiny))) as connection:
        return [name for _, name, *_ in connection.execute("PRAGMA table_info(people)")]


def test_a_release_brings_its_schema(migrated: Tiny) -> None:
    """Each commit's revision is there when its replicas start; its log is kept, and `rollback` needs no way down."""
    first, answer = asked(migrated)
    assert answer == "ada"
    revision(migrated, 2, AGE, NO_AGE, WITH_AGE)
    migrated.commit("ages")
    second = migrated.run()
    assert asked(migrated) == (second["version"], "ada|36")
    assert "Running upgrade 1 -> 2" in migrated("logs", str(second["run"]), "migrate.production").out
    assert "=== migrate.production\n" in migrated("logs", str(second["run"])).out
    migrated("rollback", "production")
    assert asked(migrated) == (first, "ada")
    assert columns(migrated) == ["name", "age"]


def test_migrate_down_where_a_person_asks(migrated: Tiny) -> None:
    """`rollback --migrate-down` takes the column away again; the next deploy of the version brings it back."""
    first, _ = asked(migrated)
    revision(migrated, 2, AGE, NO_AGE, WITH_AGE)
    migrated.commit("ages")
    second = migrated.run()["version"]
    migrated("rollback", "production", "--migrate-down")
    assert (asked(migrated), columns(migrated)) == ((first, "ada"), ["name"])
    migrated("deploy", second, "production")
    assert asked(migrated) == (second, "ada|36")


def test_a_failing_migration(migrated: Tiny) -> None:
    """The run fails with the reason, where the log is and how it ends; the old release serves, and so it says."""
    first, _ = asked(migrated)
    revision(migrated, 2, ["ALTER TABLE nobody ADD COLUMN age INTEGER"], [], WITH_AGE)
    migrated.commit("a mistake")
    run = migrated.run(code=1)
    found = release_of(run)
    assert (run["status"], found["status"]) == ("failed", "rejected")
    assert f"did not pass (exit code 1): penstock logs {run['run']} migrate.production" in found["reason"]
    assert found["reason"].endswith("no such table: nobody")
    assert "no such table: nobody" in migrated("logs", str(run["run"]), "migrate.production").out
    assert asked(migrated) == (first, "ada")
    note = migrated("status", "--json").json["environments"][0]["note"]
    assert f"{run['version']} was rejected: its migration did not pass" in note
    revision(migrated, 2, AGE, NO_AGE, WITH_AGE)
    migrated.commit("mended")
    migrated.run()
    assert asked(migrated)[1] == "ada|36"


def test_old_code_on_the_new_schema(migrated: Tiny) -> None:
    """Where the migration passed and the new code does not become healthy, the old code serves on what it left."""
    first, _ = asked(migrated)
    revision(migrated, 2, AGE, NO_AGE, "SELECT nothing FROM people")
    migrated.edit("penstock.yaml", "start_timeout: 20s", "start_timeout: 1s")
    migrated.commit("broken code")
    assert "did not answer /health with 200" in release_of(migrated.run(code=1))["reason"]
    assert columns(migrated) == ["name", "age"]
    assert asked(migrated) == (first, "ada")


def test_a_lock_that_another_session_holds(migrated: Tiny) -> None:
    """The time limit ends a migration that waits; the old release answers meanwhile and after it."""
    first, _ = asked(migrated)
    migrated.edit("penstock.yaml", "timeout: 30s", "timeout: 2s")
    revision(migrated, 2, AGE, NO_AGE, WITH_AGE)
    migrated.commit("ages")
    with closing(sqlite3.connect(database(migrated), isolation_level=None)) as session:
        session.execute("BEGIN IMMEDIATE")
        found = release_of(migrated.run(code=1))
        assert "took longer than its timeout of 2 s" in found["reason"]
        assert asked(migrated) == (first, "ada")
    assert (asked(migrated), columns(migrated)) == ((first, "ada"), ["name"])


def test_a_contract_keeps_older_code_out(migrated: Tiny) -> None:
    """`contract: true`: rollback and deploy of the version before are refused with the reason, unless forced."""
    first, _ = asked(migrated)
    migrated.edit("penstock.yaml", "timeout: 30s", "timeout: 30s, contract: true")
    revision(migrated, 2, ["ALTER TABLE people RENAME COLUMN name TO called"], [], "SELECT called FROM people")
    migrated.commit("renamed")
    second = migrated.run()["version"]
    migrated("rollback", "production", code=2).refuses(f"migrated for {second}", "contract", "--force")
    refused = migrated("deploy", str(first), "production", code=1)
    sentence(refused.err, "production keeps what it had: production was migrated for .* --force goes back all the same")
    assert asked(migrated) == (second, "ada")
    revision(migrated, 3, ["ALTER TABLE people RENAME COLUMN called TO name"], [], "SELECT name FROM people")
    migrated.edit("penstock.yaml", ", contract: true", "")
    migrated.commit("back again")
    migrated.run()
    migrated("deploy", str(first), "production", "--force")
    assert asked(migrated) == (first, "ada")


def test_secrets_of_a_migration_stay_secret(tiny: Tiny) -> None:
    """It is given the environment's secrets, and its log does not show them."""
    with_schema(tiny, f"variables: {{DATABASE: {database(tiny)}}}, secrets: [WORD]", f"'{UP}; echo it is $WORD'")
    subprocess.run(
        tiny.command.argv("secret", "set", "WORD"),
        cwd=tiny.repo.folder,
        env=dict(tiny.command.environment),
        input=b"opensesame",
        check=True,
    )
    run = tiny.run()
    said = tiny("logs", str(run["run"]), "migrate.production").out
    assert "it is " in said
    assert "opensesame" not in said


# --- PostgreSQL ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL of the test's own, on a socket."""

    folder: Path

    def sql(self, text: str) -> str:
        return subprocess.run(self.psql("-tAqc", text), capture_output=True, text=True, check=True).stdout.strip()

    def psql(self, *arguments: str) -> list[str]:
        return ["psql", "-h", str(self.folder), "-U", "postgres", "-d", "postgres", *arguments]


def _program(name: str) -> str | None:
    return shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


def _give_up(reason: str) -> NoReturn:
    """Skips the test; where CI=true it fails, for the set-up has installed PostgreSQL there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """PostgreSQL refuses to be root: then it is the user `postgres` that Debian's package makes."""
    programs = {name: _program(name) for name in ("initdb", "pg_ctl", "psql")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        _give_up(f"not installed: {', '.join(missing)} (apt-get install postgresql)")
    user: Any = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    folder.chmod(0o755)
    if user:
        shutil.chown(folder, "postgres", "postgres")

    def do(name: str, *arguments: str) -> None:
        subprocess.run([str(programs[name]), *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL, **user)

    data = str(folder / "data")
    do("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    try:
        do("pg_ctl", "-D", data, "-w", "-s", "-l", str(folder / "log"), "-o", options, "start")
        yield Cluster(folder)
        do("pg_ctl", "-D", data, "-w", "-s", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_alembic_on_postgresql(tiny: Tiny, cluster: Cluster) -> None:
    """First schema, a lock that another session holds, a failure, old code on the new schema, and the new code."""
    variables = f"variables: {{PGHOST: {cluster.folder}, PGUSER: postgres, PGDATABASE: postgres}}"
    with_schema(tiny, variables, "{run: sh schema/by_psql.sh, timeout: 60s, lock_timeout: 500ms}")
    first = tiny.run()["version"]
    assert asked(tiny) == (first, "ada")

    revision(tiny, 2, AGE, NO_AGE, WITH_AGE)
    tiny.commit("ages")
    with subprocess.Popen(cluster.psql("-q"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("BEGIN; SELECT name FROM people;\n")
        session.stdin.flush()
        assert session.stdout.readline()
        run = tiny.run(code=1)
        assert asked(tiny) == (first, "ada")
        session.stdin.close()
    assert "canceling statement due to lock timeout" in tiny("logs", str(run["run"]), "migrate.production").out
    assert "its migration did not pass (exit code 3)" in release_of(run)["reason"]

    revision(tiny, 2, [*TABLES, "ALTER TABLE nobody ADD COLUMN age INTEGER"], [], WITH_AGE)
    tiny.commit("a mistake")
    assert 'relation "nobody" does not exist' in release_of(tiny.run(code=1))["reason"]
    assert cluster.sql("SELECT version_num FROM alembic_version") == "1"
    assert asked(tiny) == (first, "ada")

    revision(tiny, 2, AGE, NO_AGE, "SELECT nothing FROM people")
    tiny.edit("penstock.yaml", "start_timeout: 20s", "start_timeout: 1s")
    tiny.commit("broken code")
    tiny.run(code=1)
    assert cluster.sql("SELECT version_num FROM alembic_version") == "2"
    assert asked(tiny) == (first, "ada")

    tiny.edit("penstock.yaml", "start_timeout: 1s", "start_timeout: 20s")
    tiny.repo.put("query.sql", WITH_AGE)
    tiny.commit("mended")
    second = tiny.run()["version"]
    assert asked(tiny) == (second, "ada|36")
