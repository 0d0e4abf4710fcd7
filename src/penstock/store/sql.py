"""The store on SQLAlchemy Core: one connection, explicit transactions, and a room per noun.

SQLite in WAL mode, one writing connection (the coordinator's); commands insert only requests. A transaction takes
the write lock at once, so that a compare-and-set never meets a change in between.
"""

import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection, create_engine, event, inspect, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from penstock.errors import DiskError, EngineError
from penstock.store import disks
from penstock.store.actions import Actions, Blobs
from penstock.store.approvals import Approvals
from penstock.store.baselines import Baselines
from penstock.store.cases import Cases
from penstock.store.drifts import Drifts
from penstock.store.evidence import Evidences
from penstock.store.history import History
from penstock.store.journal import Journal
from penstock.store.migrations import Migrations
from penstock.store.releases import Releases
from penstock.store.requests import Requests
from penstock.store.runs import Runs
from penstock.store.secrets import Tokens
from penstock.store.tables import HEAD
from penstock.store.triggers import Triggers

LOG_PAGES = 1900
"""Pages of the log after which the coordinator moves them into the database: they fit into what is kept for it."""

_NEVER = "wal_autocheckpoint=0"


class Store:
    """All facts of one home. Not thread-safe: it belongs to the thread that made it."""

    def __init__(self, connection: Connection, crash: Callable[[str], None] | None = None) -> None:
        self._connection = connection
        self._crash = crash
        self._depth = 0
        self._durable: bool | None = None
        self._path = Path(connection.engine.url.database or "")
        self._roomy = False
        self._trouble: DiskError | None = None
        event.listen(connection.engine, "handle_error", self._note_trouble)
        self._journal = Journal(connection)
        self.requests = Requests(connection)
        self.runs = Runs(connection, self._journal)
        self.releases = Releases(connection, self._journal)
        self.migrations = Migrations(connection, self._journal)
        self.approvals = Approvals(connection, self._journal)
        self.actions = Actions(connection, self._journal)
        self.blobs = Blobs(connection)
        self.secrets = Tokens(connection)
        self.evidence = Evidences(connection)
        self.cases = Cases(self._journal)
        self.baselines = Baselines(connection, self._journal)
        self.triggers = Triggers(connection, self.requests)
        self.drifts = Drifts(connection)
        self.history = History(connection)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Everything inside happens or nothing does; nested uses join the outer one.

        `durable` waits for the disk: used before any effect outside (deploy, migration, approval). Raises DiskError
        where the disk does not take it, and from then on always: what was not written must not be built upon.
        """
        if self._depth:
            yield
            return
        self.insist()
        if durable is not self._durable:
            self._connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        if not self._roomy:
            disks.keep_room(self._path)
            self._roomy = True
        self._begin()
        try:
            yield
            names = self._journal.names() if self._crash else []
            self._journal.flush()
            self._pass_points(names, "before_commit")
            self._journal.execute("COMMIT")
            self._pass_points(names, "after_commit")
        except BaseException as error:
            self._undo()
            self._refuse(error)
            raise
        finally:
            self._journal.collecting = False
            self._depth -= 1

    def _begin(self) -> None:
        try:
            self._journal.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._refuse(error)
            raise
        self._depth += 1
        self._journal.collecting = True

    def _undo(self) -> None:
        """Nothing of the transaction happened. A full disk has SQLite roll back by itself."""
        self._journal.forget()
        if self._journal.is_open:
            self._journal.execute("ROLLBACK")

    def _refuse(self, error: BaseException) -> None:
        """Raise DiskError where that is what the error means."""
        found = disks.trouble(error, self._path)
        if found is not None:
            self._trouble = found
            raise found from error

    def _note_trouble(self, context: ExceptionContext) -> None:
        self._refuse(context.original_exception)

    def insist(self) -> None:
        """Raise the DiskError of the first write that failed, if any did."""
        if self._trouble is not None:
            raise self._trouble

    def _pass_points(self, names: list[str], when: str) -> None:
        """The named crash points of a transaction's transitions; only tests switch one on."""
        if self._crash is not None:
            for name in names:
                self._crash(f"{name}:{when}")

    def take_charge(self) -> None:
        """From now on this connection moves the log into the database: the coordinator's alone does.

        Before SQLite 3.51.3 two that do so at once may lose a page.
        """
        self._connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")

    def changes(self) -> tuple[int, int]:
        """Numbers that move whenever anybody changed the database: another connection, or this one."""
        others = int(self._connection.exec_driver_sql("PRAGMA data_version").scalar_one())
        own = getattr(self._connection.connection.dbapi_connection, "total_changes", 0)
        return others, int(own)

    def last_event(self) -> int:
        """The sequence number of the newest recorded transition."""
        return int(self._connection.execute(text("SELECT coalesce(max(seq), 0) FROM events")).scalar_one())

    def check(self) -> str:
        """SQLite's own quick check: `ok`, or what is damaged."""
        try:
            rows = self._connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
        except (DBAPIError, DiskError) as error:
            return str(getattr(error, "orig", None) or error)
        return "; ".join(" ".join(str(row).split()) for row in rows)

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()
        disks.reserve_room(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(path: Path, crash: Callable[[str], None] | None = None) -> Store:
    """Open the database of a home, made or brought up to date where needed. Raises EngineError.

    A database written by a newer Penstock is refused rather than misread. `crash` is told of every crash point that
    is passed (`run.start:before_commit`); only tests give one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Store(_open(path), crash)
    except (DBAPIError, sqlite3.Error) as error:
        if disks.trouble(error, path) is not None and disks.release_room(path):
            return open_store(path, crash)
        cause = getattr(error, "orig", None) or error
        raise EngineError(f"the database {path} cannot be used ({cause}): run penstock doctor") from error


def _open(path: Path) -> Connection:
    """A connection to a database that is up to date."""
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=StaticPool, isolation_level="AUTOCOMMIT")
    try:
        with _alone(path):
            connection = engine.connect()
            for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", _NEVER):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            if _revision(connection) != HEAD:
                _upgrade(connection, path)
    except BaseException:
        engine.dispose()
        raise
    return connection


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One opens at a time: SQLite waits for nobody while a new database changes to WAL, whatever its timeout."""
    with path.with_suffix(".opening").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def _upgrade(connection: Connection, path: Path) -> None:
    """Run the migrations; imported here because alembic takes half a second and is needed once per home."""
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("schema")))
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise EngineError(f"{path} was written by a newer Penstock (schema {found}): update Penstock to use this home")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")
