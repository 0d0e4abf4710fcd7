"""A home, projects and commands as a person has them: real subprocesses, real git, nothing installed.

Steps and servers write what they do into a ledger, and wait while a gate is closed; so a test waits for what has
happened, and decides what happens next. What a home did is read from its own journal, behind its back.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from faults.forks import Forked
from routers.toys import free_port
from sources.repositories import Repo, isolated, new_repo

PATIENCE = 30.0
LINES = 40
"""Lines that a step prints before its gate, and again after it."""

STEP = f"""\
# sh step.sh NAME: numbered lines, the gate, more numbered lines; each execution stands in the ledger.
print() {{ while [ "$i" -lt "$1" ]; do i=$((i + 1)); echo "$name line $i"; done; }}
name=$1
i=0
print {LINES}
echo "began $name step $PENSTOCK_VERSION $PENSTOCK_URL" >>"$ROOM/ledger"
while [ -e "$ROOM/$name.closed" ] || [ -e "$ROOM/$name-$PENSTOCK_RUN.closed" ]; do sleep 0.02; done
print {2 * LINES}
echo "ended $name" >>"$ROOM/ledger"
"""

SERVE = """\
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOM = Path(os.environ["ROOM"])
PLACE = os.environ.get("PENSTOCK_ENVIRONMENT", "private")
VERSION = os.environ["PENSTOCK_VERSION"]
SERVER = os.urandom(8).hex()
MODEL = Path("model/model.txt").read_text().strip()
HELD = []


def note(line):
    with (ROOM / "ledger").open("a") as ledger:
        ledger.write(f"{line}\\n")


def wait(gate):
    while (ROOM / f"{gate}.closed").exists():
        time.sleep(0.02)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        if self.path == "/slow":
            note(f"asked slow {SERVER} {VERSION}")
            wait("slow")
        if self.path == "/" and MODEL == "crashing":
            os._exit(3)
        if self.path == "/" and MODEL == "hungry":
            HELD.append(b"x" * (64 << 20))
        body = json.dumps({"model": MODEL, "version": VERSION, "server": SERVER}).encode()
        self.send_response(500 if self.path == "/" and MODEL == "broken" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


note(f"began serve-{PLACE} {SERVER} {VERSION}")
wait(f"serve-{PLACE}")
Server(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""

PIPELINE = """\
name: {name}
variables: {{ROOM: "{room}"}}
steps:
  make: {{run: "sh step.sh make; mkdir model; cp source.txt model/model.txt", inputs: [step.sh, source.txt], \
outputs: [model/]}}
  ask: {{stage: test, needs: package, run: sh step.sh ask, inputs: [step.sh]}}
package: {{model: model/, code: [serve.py], serve: python serve.py, health: /health}}
"""

# A step that ignores TERM, and leaves another such process in a session and with a parent of its own.
STUBBORN = """\
(trap '' TERM INT HUP; setsid sh -c 'trap "" TERM INT HUP; (echo began far >>"$ROOM/ledger"; \
while :; do sleep 0.1; done) &' &)
trap '' TERM INT HUP
until grep -q far "$ROOM/ledger"; do sleep 0.02; done
echo began stubborn >>"$ROOM/ledger"
while [ -e "$ROOM/stubborn.closed" ]; do sleep 0.1; done
"""

STAGING = """\
environments:
  staging: {{port: {staging}, replicas: 1}}
"""

PRODUCTION = """\
environments:
  production: {{port: {production}, replicas: 2}}
"""

BOTH = (
    STAGING
    + """\
  production: {{needs: staging, port: {production}, replicas: 2}}
"""
)

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "what the test waits for") -> T:
    """Wait until a condition holds and return its value; fails the test after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        holds = condition()
        if holds:
            return holds
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE:g} s"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in {b"Z", b"X"}


@dataclass
class Note:
    """A line of the ledger: something began, ended or was asked; `server` is who a server says that it is."""

    event: str
    name: str
    server: str = ""
    version: str = ""
    url: str = ""


@dataclass(frozen=True)
class Project:
    """A repository with a pipeline whose steps and servers obey gates in `room`."""

    repo: Repo
    room: Path
    staging: int
    production: int

    def commit(self, source: str) -> str:
        """A commit of another model; its sha."""
        return self.repo.commit(source, **{"source.txt": source})

    def pipeline(self, text: str) -> None:
        """Write another pipeline file (not committed yet)."""
        values = {"room": self.room, "staging": self.staging, "production": self.production}
        self.repo.put("penstock.yaml", text.format(name=self.repo.folder.name, **values))

    def stubborn(self) -> None:
        """A commit with a step that does not want to end, and its gate closed."""
        self.repo.put("stubborn.sh", STUBBORN)
        self.pipeline(PIPELINE.replace("ask:", "stubborn: {{run: sh stubborn.sh, inputs: [stubborn.sh]}}\n  ask:"))
        self.commit("stubborn")
        self.close("stubborn")

    def close(self, gate: str) -> None:
        (self.room / f"{gate}.closed").touch()

    def open(self, gate: str) -> None:
        (self.room / f"{gate}.closed").unlink()

    def ledger(self, event: str, name: str, version: str = "") -> list[Note]:
        """What happened under a name, oldest first; with a version's beginning, only there."""
        if not (self.room / "ledger").exists():
            return []
        notes = [Note(*line.split()[:5]) for line in (self.room / "ledger").read_text().splitlines()]
        return [n for n in notes if (n.event, n.name) == (event, name) and n.version.startswith(version)]

    def until_noted(self, event: str, name: str, count: int = 1) -> Note:
        """Wait until something happened so many times; the last of them."""
        return until(lambda: self.ledger(event, name)[count - 1 :], f"{event} {name}")[0]

    def serves(self, environment: str = "production") -> dict[str, Any]:
        """What an environment answers now."""
        return ask(getattr(self, environment))


def ask(port: int, path: str = "/") -> dict[str, Any]:
    """One request on a connection of its own, not tried again."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return {**found, "release": answer.headers["x-penstock-release"]}


def answers(port: int) -> dict[str, Any] | None:
    """The same, or None where nobody answers well just now."""
    try:
        return ask(port)
    except OSError:
        return None


@dataclass
class Command:
    """One `penstock …` in a terminal of its own."""

    arguments: tuple[str, ...]
    process: "subprocess.Popen[bytes] | Forked"
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """End it with -9, and see it gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def ends(self, code: int = 0) -> str:
        """Wait for its end, which must be with this exit code; its stdout."""
        found = self.wait()
        assert found == code, f"{' '.join(self.arguments)} left with {found}, not {code}\n{self.said}"
        assert "Traceback" not in self.said
        return self.out.read_text()

    @property
    def said(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"


@dataclass
class House:
    """A home of its own with its projects, and every command started on it."""

    folder: Path
    commands: list[Command] = field(default_factory=list)
    projects: list[Project] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        found = isolated(self.folder / "person")
        path = f"{Path(sys.executable).parent}:{found['PATH']}"
        return {**found, "PATH": path, "PENSTOCK_HOME": str(self.home), "LANG": "C.UTF-8"}

    def project(self, name: str = "tiny", environments: str = BOTH) -> Project:
        """A new repository with one commit, whose model is called one."""
        repo = new_repo(self.folder / name, self.environment)
        room = self.folder / f"{name}-room"
        room.mkdir()
        made = Project(repo, room, free_port(), free_port())
        repo.put("step.sh", STEP)
        repo.put("serve.py", SERVE)
        made.pipeline(PIPELINE + environments)
        made.commit("one")
        self.projects.append(made)
        return made

    # --- commands

    def start(self, project: Project | None, *arguments: str, crash: str | None = None) -> Command:
        """Type a command in the project's folder and do not wait for it; at the first passing of `crash` it dies."""
        number = len(self.commands)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock", *arguments],
                cwd=project.repo.folder if project else self.folder,
                env={**self.environment, **({"PENSTOCK_CRASH": f"{crash}#1"} if crash else {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        command = Command(arguments, process, out, err)
        self.commands.append(command)
        return command

    def do(self, project: Project | None, *arguments: str, code: int = 0) -> str:
        """Type a command and wait for its end, which must be with this exit code; its stdout."""
        return self.start(project, *arguments).ends(code)

    def run(self, project: Project, *arguments: str, code: int = 0) -> dict[str, Any]:
        """`penstock run --json` to its end."""
        found: dict[str, Any] = json.loads(self.do(project, "run", "--json", *arguments, code=code))
        return found

    def show(self, run: int = 1) -> dict[str, Any]:
        """`penstock show --json` of one run, with its steps by name."""
        found: dict[str, Any] = json.loads(self.do(None, "show", str(run), "--json"))
        return {**found, "steps": {step["name"]: step for step in found["steps"]}}

    # --- what the home knows, read behind its back

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the database; none where it does not stand yet."""
        path = self.home / "penstock.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []
        finally:
            connection.close()

    def events(self, kind: str, event: str, entity: str = "%") -> list[tuple[int, float, str]]:
        """Recorded transitions: sequence number, seconds since the epoch, what moved."""
        query = "SELECT seq, at, entity FROM events WHERE kind = ? AND event = ? AND entity LIKE ? ORDER BY seq"
        return self.rows(query, kind, event, entity)

    def until_event(self, kind: str, event: str, entity: str = "%", count: int = 1) -> tuple[int, float, str]:
        """Wait until a transition was recorded so many times; the last of them."""
        what = f"{kind} {entity} {event}"
        return until(lambda: self.events(kind, event, entity)[count - 1 :], what)[0]

    def attempts(self, run: int, step: str) -> list[str]:
        """How the attempts of a step ended, oldest first."""
        query = "SELECT coalesce(reason, status) FROM attempts WHERE run = ? AND step = ? ORDER BY number"
        return [reason for (reason,) in self.rows(query, run, step)]

    def until_recorded(self, run: int, step: str) -> int:
        """Wait until the start of a step is recorded; the number of its shim."""
        query = "SELECT json_extract(handle, '$.pid') FROM attempts WHERE run = ? AND step = ? AND handle IS NOT NULL"
        return int(until(lambda: self.rows(query, run, step), f"the start of {step} is recorded")[0][0])

    def serving(self, environment: str = "production") -> list[str]:
        """The versions of the releases that have an environment's traffic: at most one per project."""
        query = "SELECT version FROM releases WHERE environment = ? AND status = 'serving' ORDER BY id"
        return [version for (version,) in self.rows(query, environment)]

    def statuses(self, environment: str = "production") -> list[str]:
        """The status of every release of an environment, oldest first."""
        query = "SELECT status FROM releases WHERE environment = ? ORDER BY id"
        return [status for (status,) in self.rows(query, environment)]

    def processes(self) -> dict[int, str]:
        """Every living process that has to do with this house, with its command line; commands included."""
        return {pid: line for pid, (line, _) in self._found().items()}

    def step(self, run: int, name: str) -> set[int]:
        """The living processes of a step (or of `serve`), shims included and its sleeps not, by their variables."""
        wanted = {f"PENSTOCK_RUN={run}".encode(), f"PENSTOCK_STEP={name}".encode()}
        found = self._found().items()
        return {pid for pid, (line, variables) in found if wanted <= variables and not line.startswith("sleep")}

    def servers(self, environment: str = "production") -> set[int]:
        """The living servers of an environment, without their shims."""
        wanted = f"PENSTOCK_ENVIRONMENT={environment}".encode()
        found = self._found().items()
        return {pid for pid, (line, variables) in found if wanted in variables and line.startswith("python serve.py")}

    def _found(self) -> dict[int, tuple[str, set[bytes]]]:
        """Processes whose arguments, variables or folder name this house, with arguments and variables."""
        places = [place for place in Path("/proc").iterdir() if place.name.isdecimal()]
        found = {int(place.name): self._trace(place) for place in places}
        return {pid: it for pid, it in found.items() if it is not None and pid != os.getpid() and lives(pid)}

    def _trace(self, place: Path) -> tuple[str, set[bytes]] | None:
        folder = os.fsencode(self.folder)
        try:
            line, variables = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            around = os.fsencode((place / "cwd").readlink())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        if folder in line or folder in variables or around.startswith(folder):
            return line.replace(b"\0", b" ").decode(errors="replace"), set(variables.split(b"\0"))
        return None

    def log_is_whole(self, run: int, step: str) -> None:
        """The log of a step that was attempted once holds every line that it printed, once and in order."""
        lines = self.do(None, "logs", str(run), step).splitlines()
        assert lines == [f"{step} line {number}" for number in range(1, 2 * LINES + 1)]

    # --- the end

    def end(self) -> None:
        """Stop the home; nothing of it is left, and its journal contradicts nothing."""
        for project in self.projects:
            for gate in project.room.glob("*.closed"):
                gate.unlink()
        try:
            for command in self.commands:
                if command.process.poll() is None:
                    command.kill()
            self.do(None, "stop")
            for (run,) in self.rows("SELECT id FROM runs WHERE status IN ('queued', 'running')"):
                self.do(None, "cancel", str(run))
            assert not (left := self.processes()), f"left running: {left}"
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
        self.journal_is_sound()

    def journal_is_sound(self) -> None:
        """Each transition begins where the last one ended; ends are final; one attempt of a step, one release of an
        environment at a time; nobody was given the same process twice.
        """
        state: dict[tuple[str, str], str | None] = {}
        places = {str(r): f"{project} {name}" for r, project, name in self.rows(_PLACES)}
        for kind, entity, event, before, after in self.rows(_EVENTS):
            known = state.get((kind, entity), "queued" if kind == "step" else None)
            assert before == known, f"{kind} {entity}: {event} from {before}, which was {known}"
            state[kind, entity] = after
            if kind == "release":
                serving = Counter(places[e] for (k, e), now in state.items() if (k, now) == ("release", "serving"))
                assert not serving or max(serving.values()) == 1
            if kind == "attempt":
                live = Counter(
                    e.rsplit(".", 1)[0] for (k, e), now in state.items() if k == "attempt" and now != "ended"
                )
                assert not live or max(live.values()) == 1
        # A process that was found by its record alone, because it had ended by then, has the number 0.
        pids = self.rows("SELECT json_extract(handle, '$.pid') FROM attempts WHERE json_extract(handle, '$.pid') > 0")
        assert len(pids) == len(set(pids))


_EVENTS = 'SELECT kind, entity, event, "before", "after" FROM events ORDER BY seq'
_PLACES = "SELECT id, project, environment FROM releases"
