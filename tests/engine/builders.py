"""A home with all its parts: real store, cache and git, and a scripted machine whose servers really answer."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from penstock.artifacts import Digest, File, Tree
from penstock.cache.disk import DiskCache
from penstock.cli.asking import Wish, find, run_payload
from penstock.engine.contracts import Handle, ProcessSpec
from penstock.engine.coordinator import Coordinator
from penstock.engine.delivery import Delivery, Wanted
from penstock.engine.followers import boot_id, myself, poke, start_time
from penstock.engine.scheduling import Capacity
from penstock.engine.views import view
from penstock.engine.world import Home, World
from penstock.packages import Manifest, assemble
from penstock.routers.scripted import ScriptedRouter
from penstock.runners.scripted import NEVER, Act, ScriptedRunner
from penstock.runs import RequestStatus, RunView, StepView
from penstock.runtimes.exporting import Exports
from penstock.runtimes.uv import UvRuntimes
from penstock.sources.git import GitSource
from penstock.store.contract import Follower, Project, Release, Request
from penstock.store.sql import open_store
from sources.repositories import Repo, isolated, new_repo

PATIENCE = 20.0
SERVE = "serve the model"
JUNIT = """<testsuite name="units"><testcase classname="t" name="adds"/>{}</testsuite>"""
FAILED_CASE = """<testcase classname="t" name="divides"><failure message="1 != 2"/></testcase>"""
DIGITS: dict[str, Any] = {
    "variables": {"EPOCHS": "4"},
    "steps": {
        "data": {"run": "make data", "inputs": ["src/"], "outputs": ["data/"]},
        "train": {
            "run": "train for ${{ variables.EPOCHS }} epochs",
            "inputs": ["src/", "data/"],
            "outputs": ["model/"],
            "metrics": "metrics.json",
        },
        "unit": {"run": "run the units", "inputs": ["src/"], "report": "junit.xml"},
        "try": {"run": "ask the served model", "inputs": ["src/"], "needs": ["package"]},
    },
    "package": {"model": ["model/"], "code": ["src/"], "serve": SERVE},
    "gates": {"learned": {"metric": "train.accuracy", "at_least": 0.9}},
    "environments": {
        "staging": {"port": 8801},
        "production": {"port": 8802, "needs": ["staging"], "replicas": 2},
    },
}
ACTS: dict[str, Act] = {
    "make data": Act(files={"data/train.csv": "1,2\n"}),
    "train for": Act(files={"model/weights": "w", "metrics.json": '{"accuracy": 0.95}'}, output="epoch 4\n"),
    "run the units": Act(files={"junit.xml": JUNIT.format("")}),
}
PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")


class Server(TCPServer):
    """Answers every GET with the status that `statuses` has for its version, else 200, until it is closed."""

    allow_reuse_address = True

    def __init__(self, port: int, version: str, statuses: Mapping[str, int | None]) -> None:
        self.version, self.statuses = version, statuses
        super().__init__(("127.0.0.1", port), _Answer)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        with suppress(ConnectionError):  # whoever asked may be gone
            self.send_response(self.server.statuses.get(self.server.version, 200) or 500)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Machine(ScriptedRunner):
    """A scripted machine on which whatever is given a PORT answers there, until it ends.

    `statuses` are the HTTP statuses of versions that do not answer 200; None means that nothing listens. `found` is
    what each process found in its workspace.
    """

    def __init__(self, script: Mapping[str, Act | int] | None = None) -> None:
        super().__init__({SERVE: NEVER, **ACTS, **(script or {})})
        self.statuses: dict[str, int | None] = {}
        self.found: dict[str, set[str]] = {}
        self._servers: dict[str, Server] = {}

    def start(self, spec: ProcessSpec) -> Handle:
        files = (p for p in spec.workspace.rglob("*") if p.is_file())
        self.found[spec.id] = {str(p.relative_to(spec.workspace)) for p in files}
        handle = super().start(spec)
        version = spec.variables.get("PENSTOCK_VERSION", "")
        if "PORT" in spec.variables and self.alive(handle) and self.statuses.get(version, 200) is not None:
            self._servers[spec.id] = Server(int(spec.variables["PORT"]), version, self.statuses)
        return handle

    async def end(self, handle: Handle, grace: float) -> None:
        await super().end(handle, grace)
        self._silence(handle.id)

    async def finish(self, spec_id: str, code: int | None = 0, output: str = "") -> None:
        await super().finish(spec_id, code, output)
        self._silence(spec_id)

    async def vanish(self) -> None:
        """The machine goes down: everything on it is lost."""
        for spec in self.started:
            await self.finish(spec.id, None)

    def _silence(self, spec_id: str) -> None:
        if spec_id in self._servers:
            self._servers.pop(spec_id).close()

    def close(self) -> None:
        """Nothing listens any more."""
        for name in list(self._servers):
            self._silence(name)

    def runs(self, spec_id: str) -> bool:
        """Whether a process of this id lives."""
        return any(p.spec.id == spec_id and p.ending is None for p in self._processes.values())


@dataclass
class Clock:
    """The machine's clocks, `ahead` by some seconds."""

    ahead: float = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class Command:
    """A command that waits for a request: a real process that can be killed."""

    process: "subprocess.Popen[bytes]" = field(default_factory=lambda: subprocess.Popen(["sleep", "1000"]))

    @property
    def follower(self) -> Follower:
        return Follower(self.process.pid, start_time(self.process.pid) or 0, boot_id())

    def die(self) -> None:
        self.process.kill()
        self.process.wait()


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fails the test when it never does."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


class House:
    """One home, one repository, one machine; coordinators come and go."""

    def __init__(self, folder: Path, database: Path) -> None:
        """A home in `folder`; `database` is an empty one to begin with, for migrating costs more than most tests."""
        home = Home(folder / "home")
        home.make()
        shutil.copyfile(database, home.database)
        self.folder = folder
        self.environment = isolated(folder / "person")
        self.machine = Machine()
        self.router = ScriptedRouter()
        self.clock = Clock()
        self.store = open_store(home.database)
        self.world = World(
            home=home,
            store=self.store,
            cache=DiskCache(home.cache),
            source=GitSource(home.sources, self.environment, self.store.blobs),
            runtimes=UvRuntimes(home.path, self.environment),
            runner=self.machine,
            router=self.router,
            images=Exports(home.path, None),
            clock=self.clock,
            environment=self.environment,
            capacity=Capacity(2),
            grace=0.0,
            drain=1.0,
            settle=0.0,
            look=0.01,
        )
        self._repo: Repo | None = None

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        """Let a story happen in an event loop of its own; what a callback raises fails it too."""
        faults: list[Any] = []

        async def played() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
            async with asyncio.timeout(2 * PATIENCE):
                await story

        asyncio.run(played())
        assert not faults

    # --- commits and requests

    @property
    def repo(self) -> Repo:
        if self._repo is None:
            self._repo = new_repo(self.folder / "repository", self.environment)
        return self._repo

    def commit(self, pipeline: Mapping[str, Any], **files: str) -> str:
        """Commit a pipeline file (JSON is YAML) beside other files; `__` in a name is a slash."""
        text = json.dumps({"name": "digits", **pipeline})
        named = {name.replace("__", "/"): content for name, content in files.items()}
        return self.repo.commit(**{"penstock.yaml": text, **named})

    def ask(self, kind: str, payload: Mapping[str, Any], follower: Follower | None = None) -> int:
        """A command asks for something; a coordinator that works is woken."""
        number = self.store.requests.add(kind, payload, follower or myself(), "ada")
        poke(self.world.home.fifo)
        return number

    def ask_run(self, follower: Follower | None = None, *, worktree: bool = False, **options: Any) -> int:
        """Ask for a run of what the repository holds."""
        found = find(self.world.source, Wish(str(self.repo.folder), worktree=worktree))
        payload = run_payload(self.world.source, found, options, self.environment)
        return self.ask("run", payload, follower)

    def is_over(self, request: int) -> bool:
        return self.store.requests.get(request).status is not RequestStatus.OPEN

    async def carry_out(self, request: int) -> Request:
        """Be the coordinator until a request is over."""
        async with asyncio.timeout(PATIENCE):
            await Coordinator(self.world).coordinate(lambda: self.is_over(request))
        return self.store.requests.get(request)

    @asynccontextmanager
    async def coordinating(self) -> AsyncIterator[None]:
        """A coordinator that works meanwhile, and leaves at the end with all that it began as it stands."""
        task = asyncio.create_task(Coordinator(self.world).coordinate(lambda: False))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def ended(self, request: int) -> Request:
        """Wait for a request's end."""
        await until(lambda: self.is_over(request))
        return self.store.requests.get(request)

    # --- what came of it

    def run_of(self, request: int) -> RunView:
        run = self.store.runs.of_request(request)
        assert run is not None
        return view(self.store, run)

    def last(self) -> RunView:
        """The newest run."""
        return view(self.store, self.store.runs.latest(limit=1)[0])

    def run(self, **options: Any) -> RunView:
        """Ask for a run, carry it out, and show how it ended."""

        async def story() -> None:
            await self.carry_out(number)

        number = self.ask_run(**options)
        self.play(story())
        return self.run_of(number)

    # --- packages and releases, without a run

    def package(self, text: str = "weights", **fields: Any) -> Digest:
        """A package in the cache, whose files hold a text."""
        manifest = Manifest("digits", SERVE, "/health", 120.0, None, None, None, (), ())
        data = Manifest(**{**asdict(manifest), **fields}).encode()
        cache = self.world.cache
        model = File(cache.add_bytes(text.encode()), len(text))
        return cache.add_tree(assemble(Tree({"model": model}), File(cache.add_bytes(data), len(data)), None))

    def wanted(self, version: str, *, kind: str = "deploy", **fields: Any) -> Wanted:
        """A release that a person asks for by hand; every call is a new request."""
        self.store.runs.project(PROJECT)
        spec: dict[str, Any] = {
            "port": 8801,
            "replicas": 1,
            "variables": {},
            "person": {},
            "declared": {},
            "commit": "c" * 40,
        }
        request = self.store.requests.add(kind, {}, myself(), "ada")
        values: dict[str, Any] = {
            "project": PROJECT.id,
            "environment": "production",
            "generation": request,
            "request": request,
            "run": 0,
            "version": version,
            "package": fields.pop("package", None) or self.package(version),
            "actor": "ada",
        }
        known: dict[str, Any] = {
            k: fields.pop(k) for k in ("project", "environment", "generation", "request", "force") if k in fields
        }
        return Wanted(**{**values, **known, "spec": {**spec, **fields}})

    async def deliver(self, wanted: Wanted) -> Release:
        """Release with a coordinator's delivery of its own."""
        async with asyncio.timeout(PATIENCE):
            return await Delivery(self.world).release(wanted, lambda: None)

    def served(self, port: int = 8801) -> str | None:
        """The version that answers at an environment's port, None where nothing listens."""
        try:
            return self.router.ask(port).version
        except ConnectionRefusedError:
            return None


def steps(shown: RunView) -> dict[str, str]:
    """Status by step."""
    return {s.name: s.status for s in shown.steps}


def step(shown: RunView, name: str) -> StepView:
    return next(s for s in shown.steps if s.name == name)
