"""The tiny project with a database: an Alembic project in its package, and a server that answers from a table."""

from pathlib import Path

from acceptance.tiny import Tiny

SERVE = """\
import http.server
import os
import pathlib
import sqlite3
import subprocess

QUERY = pathlib.Path("query.sql").read_text()


def rows():
    if "PGHOST" in os.environ:
        done = subprocess.run(["psql", "-tAqc", QUERY], capture_output=True, check=True, timeout=10)
        return done.stdout
    connection = sqlite3.connect(os.environ["DATABASE"], timeout=10)
    try:
        return "".join("|".join(map(str, row)) + "\\n" for row in connection.execute(QUERY)).encode()
    finally:
        connection.close()


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, body = 200, rows()
        except Exception as error:
            status, body = 500, f"{error}\\n".encode()
            print(error, flush=True)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""

ENV = """\
import logging
import os

from alembic import context

logging.basicConfig(level=logging.INFO)
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{os.environ['DATABASE']}?timeout=60")
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""

# No driver of PostgreSQL is needed: Alembic writes SQL, and psql executes it in one transaction.
BY_PSQL = """\
now=$(psql -tAqc "select version_num from alembic_version" 2>/dev/null) || now=
sql=$(python -m alembic upgrade "${now:+$now:}head" --sql)
printf '%s\\n' "$sql" | psql -q -v ON_ERROR_STOP=1
"""

REVISION = """\
from alembic import op

revision, down_revision = {revision!r}, {before!r}


def upgrade():
    for statement in {up!r}:
        op.execute(statement)


def downgrade():
    for statement in {down!r}:
        op.execute(statement)
"""

PEOPLE = ("CREATE TABLE people (name VARCHAR(50))", "INSERT INTO people VALUES ('ada')")
UP, DOWN = "python -m alembic upgrade head", "python -m alembic downgrade -1"


def with_schema(tiny: Tiny, environment: str, migrate: str) -> None:
    """Commit the first revision; `environment` are further keys of both environments, `migrate` is their command."""
    tiny.repo.put("alembic.ini", "[alembic]\nscript_location = schema\n")
    tiny.repo.put("schema/env.py", ENV)
    tiny.repo.put("schema/by_psql.sh", BY_PSQL)
    tiny.repo.put("serve.py", SERVE)
    tiny.edit("penstock.yaml", "code: [serve.py]", "code: [serve.py, query.sql, alembic.ini, schema/]")
    tiny.edit("penstock.yaml", "  evaluate: {needs: package, run: python evaluate.py, inputs: [evaluate.py], ", "")
    tiny.edit("penstock.yaml", "metrics: served.json}\n", "")
    staging = f"  staging: {{port: {tiny.ports['staging']}}}\n"
    tiny.edit("penstock.yaml", staging, "")
    tiny.edit(
        "penstock.yaml",
        f"{{needs: staging, port: {tiny.ports['production']}}}",
        f"{{port: {tiny.ports['production']}, {environment}, migrate: {migrate}}}",
    )
    revision(tiny, 1, PEOPLE, ["DROP TABLE people"], "SELECT name FROM people")
    tiny.commit("the first schema")


def revision(tiny: Tiny, number: int, up: object, down: object, query: str) -> None:
    """One more revision of the schema, and what the code of this commit asks for."""
    text = REVISION.format(revision=str(number), before=str(number - 1) if number > 1 else None, up=up, down=down)
    tiny.repo.put(f"schema/versions/{number}.py", text)
    tiny.repo.put("query.sql", query)


def asked(tiny: Tiny) -> tuple[str | None, str]:
    """Which release answers in production, and what."""
    answer = tiny.ask("production")
    assert answer is not None
    return answer.release, answer.body.decode().strip()


def database(tiny: Tiny) -> Path:
    return tiny.command.home.parent / "app.db"
