"""The tables, as SQLAlchemy Core sees them. Their history is `schema/`; `HEAD` names its newest revision.

Times are seconds since the epoch. A status column changes only through the transition tables of `runs.py` and
`releases.py`, by compare-and-set.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0012"

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("identity", String, nullable=False),
    Column("file", String, nullable=False),
    Column("location", String, nullable=False),
    Column("created", Float, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("project", ForeignKey("projects.id"), primary_key=True),
    Column("sha", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("created", Float, nullable=False),
    Index("versions_by_version", "project", "version"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("oid", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("size", Integer, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("follower", JSON, nullable=False),
    Column("actor", String, nullable=False),
    Column("status", String, nullable=False),
    Column("result", JSON),
    Column("error", Text),
    Column("exit_code", Integer),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Index("requests_by_status", "status", "id"),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("request", ForeignKey("requests.id"), nullable=False, unique=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("owner", JSON, nullable=False),
    Column("version", String, nullable=False),
    Column("commit", JSON, nullable=False),
    Column("change", JSON, nullable=False),
    Column("trigger", String, nullable=False),
    Column("mirror", String, nullable=False),
    Column("pipeline", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("status", String, nullable=False),
    Column("reason", Text),
    Column("notes", JSON, nullable=False),
    Column("package", String),
    Column("package_size", Integer),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Index("runs_by_project", "project", "id"),
    Index("runs_by_version", "project", "version", "id"),
    Index("runs_by_status", "status"),
    sqlite_autoincrement=True,
)

steps = Table(
    "steps",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("needs", JSON, nullable=False),
    Column("status", String, nullable=False),
    Column("reason", Text),
    Column("cached", Boolean, nullable=False, default=False),
    Column("key", String),
    Column("ingredients", JSON),
    Column("result", JSON),
    Column("started", Float),
    Column("ended", Float),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("step", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("reason", String),
    Column("exit_code", Integer),
    Column("detail", JSON, nullable=False),
    Column("handle", JSON),
    Column("log_end", Integer),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Index("attempts_by_step", "run", "step", "number", unique=True),
)

actions = Table(
    "actions",
    metadata,
    Column("key", String, primary_key=True),
    Column("scope", String, primary_key=True),
    Column("project", String, nullable=False),
    Column("step", String, nullable=False),
    Column("run", Integer, nullable=False),
    Column("ingredients", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
    Index("actions_by_step", "project", "step", "created"),
)

evictions = Table(
    "evictions",
    metadata,
    Column("key", String, primary_key=True),
    Column("scope", String, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("evictions_by_time", "at"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("step", String, nullable=False),
    Column("value", Float, nullable=False),
)

gates = Table(
    "gates",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("rule", String, nullable=False),
    Column("verdict", String),
    Column("value", Float),
    Column("reasons", JSON, nullable=False),
    Column("judged", Float),
    Column("chart", JSON(none_as_null=True)),
)

# What each package answered on each test set; the files themselves are in the cache, as one tree.
evidence = Table(
    "evidence",
    metadata,
    Column("project", ForeignKey("projects.id"), primary_key=True),
    Column("step", String, primary_key=True),
    Column("test_set", String, primary_key=True),
    Column("package", String, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("files", JSON, nullable=False),
    Column("collected", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Index("evidence_by_package", "project", "package"),
)

# Tests have numbers, so that one result of one test takes some twenty bytes, however long its name is; `report` is the
# newest that has it.
tests = Table(
    "tests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("step", String, nullable=False),
    Column("suite", String, nullable=False),
    Column("name", String, nullable=False),
    Column("report", Integer, nullable=False),
    UniqueConstraint("project", "step", "suite", "name"),
)

# One attempt of a step that left test results. No number comes twice: results of steps name them.
test_reports = Table(
    "test_reports",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("step", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("inputs", String, nullable=False),
    Column("created", Float, nullable=False),
    Index("test_reports_by_step", "project", "step", "scope", "id"),
    Index("test_reports_by_run", "run", "step"),
    sqlite_autoincrement=True,
)

test_results = Table(
    "test_results",
    metadata,
    Column("report", Integer, primary_key=True, autoincrement=False),
    Column("test", Integer, primary_key=True, autoincrement=False),
    Column("status", String, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("message", Text),
    Column("quarantined", Boolean, nullable=False),
    Index("test_results_red", "report", "test", sqlite_where=text("status IN ('failed', 'errored')")),
    sqlite_with_rowid=False,
)

# Where a run that passed comes from, beside its commit: data by step, hardware, seeds.
origins = Table(
    "origins",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("data", JSON, nullable=False),
    Column("hardware", JSON, nullable=False),
    Column("seeds", JSON, nullable=False),
)

# Every change of a number that a pipeline file fixes as a baseline; a row is never rewritten, and a request makes one.
fixed_baselines = Table(
    "fixed_baselines",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("gate", String, nullable=False),
    Column("event", String, nullable=False),
    Column("value", Float, nullable=False),
    Column("before", Float),
    Column("source", Text),
    Column("reason", Text),
    Column("run", ForeignKey("runs.id")),
    Column("sha", String),
    Column("request", ForeignKey("requests.id"), nullable=False),
    Column("actor", String, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("project", "gate", "request"),
    sqlite_autoincrement=True,
)

packages = Table(
    "packages",
    metadata,
    Column("project", ForeignKey("projects.id"), primary_key=True),
    Column("version", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("size", Integer, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("created", Float, nullable=False),
)

targets = Table(
    "targets",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("environment", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("reason", Text),
    Column("release", Integer),
)

environments = Table(
    "environments",
    metadata,
    Column("project", ForeignKey("projects.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("frozen", JSON(none_as_null=True)),
)

releases = Table(
    "releases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("environment", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("request", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("version", String, nullable=False),
    Column("package", String, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("actor", String, nullable=False),
    Column("status", String, nullable=False),
    Column("reason", Text),
    Column("phase", String),
    Column("fate", String),
    Column("replaced", Integer),
    Column("migration", Integer),
    Column("rollout", JSON(none_as_null=True)),
    Column("watch", JSON(none_as_null=True)),
    Column("created", Float, nullable=False),
    Column("since", Float),
    Column("ended", Float),
    Index("releases_by_environment", "project", "environment", "id"),
    Index("releases_by_status", "status"),
    sqlite_autoincrement=True,
)

migrations = Table(
    "migrations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("environment", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("release", ForeignKey("releases.id"), nullable=False),
    Column("package", String, nullable=False),
    Column("version", String, nullable=False),
    Column("contract", Boolean, nullable=False),
    Column("reverts", ForeignKey("migrations.id")),
    Column("status", String, nullable=False),
    Column("reason", Text),
    Column("log", String, nullable=False),
    Column("record", String, nullable=False),
    Column("handle", JSON),
    Column("actor", String, nullable=False),
    Column("began", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Index("migrations_by_environment", "project", "environment", "id"),
    Index("migrations_by_status", "status"),
    sqlite_autoincrement=True,
)

# What persons were asked to approve, and what they said.
approvals = Table(
    "approvals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("environment", String, nullable=False),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("request", ForeignKey("requests.id"), nullable=False),
    Column("package", String, nullable=False),
    Column("version", String, nullable=False),
    Column("settings", String, nullable=False),
    Column("over", Integer),
    Column("roles", JSON, nullable=False),
    Column("expires", Float, nullable=False),
    Column("requester", String, nullable=False),
    Column("by_another", Boolean, nullable=False),
    Column("status", String, nullable=False),
    Column("decision", ForeignKey("requests.id")),
    Column("decided_by", String),
    Column("decided", Float),
    Column("reason", Text),
    Column("created", Float, nullable=False),
    Index("approvals_by_environment", "project", "environment", "id"),
    Index("approvals_by_run", "run", "environment"),
    Index("approvals_by_status", "status"),
    sqlite_autoincrement=True,
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String, primary_key=True),
    Column("release", ForeignKey("releases.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("port", Integer, nullable=False),
    Column("handle", JSON),
    Column("status", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Column("gpus", JSON),
    Index("replicas_by_release", "release", "number"),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("entity", String, nullable=False),
    Column("event", String, nullable=False),
    Column("before", String),
    Column("after", String, nullable=False),
    Column("detail", Text),
    sqlite_autoincrement=True,
)

# No foreign key: a secret may be set before the first run makes its project known.
secrets = Table(
    "secrets",
    metadata,
    Column("project", String, primary_key=True),
    Column("environment", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("token", LargeBinary, nullable=False),
    Column("actor", String, nullable=False),
    Column("created", Float, nullable=False),
)

# No foreign key to projects: a trigger may be decided before the first run makes its project known.
drifts = Table(
    "drifts",
    metadata,
    Column("release", ForeignKey("releases.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("drifted", JSON, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("features", JSON, nullable=False),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),
    Column("name", String, nullable=False),
    Column("value", String, nullable=False),
    Column("request", ForeignKey("requests.id")),
    Column("reason", Text),
    Column("created", Float, nullable=False),
    UniqueConstraint("project", "kind", "key"),
    Index("triggers_by_name", "project", "kind", "name", "id"),
    sqlite_autoincrement=True,
)
