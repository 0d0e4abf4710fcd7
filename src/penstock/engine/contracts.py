"""What the engine needs of the world. Each protocol's comment is its contract; `tests/contracts` is its proof.

The engine imports this file and never an implementation; implementations import this file and never each other.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from penstock.artifacts import Digest, Tree
from penstock.commits import Change, Commit
from penstock.oci import Exported
from penstock.traffic import Arm


class Clock(Protocol):
    """Time, so that decisions can be tested with an invented one."""

    def now(self) -> float:
        """Seconds since the epoch, for records that people read."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for timeouts and durations."""
        ...


# --- processes: steps and replicas alike ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that a container finds at the same path; `read_only` where it must not write."""

    path: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to place: what to execute, where, with which variables, and where its traces go.

    `variables` is the whole environment; nothing else leaks in. `log` and `record` may be shared by processes that
    run one after the other: they are appended to, and a process's log is the range that its handle and ending name.
    A `kept` process is restarted by its shim, with backoff, whenever it ends, until its `folder` holds a file
    named `stop`; `folder` exists before the start and belongs to this process alone.

    `contain` asks for a pid namespace of its own where the machine has them. `memory` (bytes, of the whole tree) and
    `open_files` are limits. `secrets` names variables whose values must never reach the log in any shape.

    With an `image` (a reference that this machine's container engine knows) the process lives in a container of it,
    as our own user, with the workspace and the `mounts` at the same paths as here, the `gpus` of these indices and no
    others, and the machine's network, or with `network=False` none. What the variables do not say is as the image says.
    With `whole` the image is started as it is: its own command, folder and user, and of this machine only the `mounts`.
    """

    id: str
    command: str
    workspace: Path
    variables: Mapping[str, str]
    log: Path
    record: Path
    shell: str = "sh"
    kept: bool = False
    folder: Path | None = None
    contain: bool = False
    memory: int | None = None
    open_files: int | None = None
    secrets: tuple[str, ...] = ()
    image: str | None = None
    mounts: tuple[Mount, ...] = ()
    gpus: tuple[int, ...] = ()
    network: bool = True
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Handle:
    """A started process, as a value that survives us: pid, start time and boot id name it beyond doubt.

    `log_start` is the byte of the log where its output begins; `container` the name of the container that it is in.
    """

    id: str
    pid: int
    start_time: int
    boot_id: str
    log: str
    log_start: int
    record: str
    kept: bool = False
    folder: str | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: its exit code (negative: minus the signal), or None where no complete record tells.

    `log_end` is the byte of the log where its output ends; `oom` says that the kernel or its memory limit ended it,
    `unplaced` that no container could be made for it, or none told its end: its log says why.
    """

    exit_code: int | None
    log_end: int
    oom: bool = False
    unplaced: bool = False

    @property
    def lost(self) -> bool:
        return self.exit_code is None


class Runner(Protocol):
    """Starts and stops processes; knows nothing of pipelines or rollouts.

    Order: `start` at most once per id, then `wait` any number of times, `end` any number of times, in any order.
    A process outlives whoever started it; after our death `find` or a stored handle leads back to it.
    Nothing here blocks the event loop for longer than placing a process takes (milliseconds).
    """

    def start(self, spec: ProcessSpec) -> Handle:
        """Place the process; it exists when this returns. Raises EngineError where it cannot be placed."""
        ...

    def find(self, spec_id: str, record: Path) -> Handle | None:
        """The handle of a process whose start was intended but never recorded by us, if it was started at all."""
        ...

    def alive(self, handle: Handle) -> bool:
        """Whether the very process of the handle still lives (not one that reuses its pid)."""
        ...

    def starts(self, handle: Handle) -> int:
        """How often a kept process was started so far."""
        ...

    def last_exit(self, handle: Handle) -> int | None:
        """The exit code of a kept process's last end; None where it has never ended."""
        ...

    async def wait(self, handle: Handle) -> Ending:
        """Wait until the process has ended and say how; returns at once for one that ended long ago.

        Works for processes that somebody else started. Safe to cancel. For a kept process: when its shim ended.
        """
        ...

    async def end(self, handle: Handle, grace: float) -> None:
        """End the whole process tree: TERM, `grace` seconds, KILL; returns when nothing of it is left."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerEngine:
    """The person's container engine by its command line.

    `program` is its path; `variables` is the whole environment that it is called with (where it keeps images, how it
    reaches registries and with which credentials). Callers add nothing to these but what the call itself names.
    """

    kind: Literal["podman", "docker"]
    program: str
    variables: Mapping[str, str]


# --- the source ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Located:
    """A source brought near: identity and where its bare mirror lies.

    `identity` is the normalised origin address, else the absolute path; `name` is for display; `checkout` is the
    working tree when the source is one, with `uncommitted` the paths that differ from HEAD.
    """

    identity: str
    name: str
    mirror: Path
    location: str
    checkout: Path | None = None
    uncommitted: tuple[str, ...] = ()


class CommitFiles(Protocol):
    """The files of one commit."""

    @property
    def tree(self) -> Tree:
        """All its paths with the digests of their content; submodules and the like are absent."""
        ...

    def read(self, digest: Digest) -> bytes:
        """The content of one of its files. Raises KeyError for a digest that is not of this tree."""
        ...

    def close(self) -> None:
        """Nothing is read any more."""
        ...


class Source(Protocol):
    """Reads repositories. Blocking: callers use a thread where it matters."""

    def locate(self, location: str, *, uncommitted: bool = True) -> Located:
        """Bring a local path or clone URL near (mirror made or brought up to date). Raises SourceError.

        What is `uncommitted` takes a look at every file of a working tree; without it none is told.
        """
        ...

    def commit(self, located: Located, ref: str | None) -> Commit:
        """The commit of a branch, tag or object name; None means HEAD. Raises SourceError where there is none."""
        ...

    def glance(self, location: str) -> str:
        """A name for where the branches of a location stand, told without bringing it near. Raises SourceError."""
        ...

    def branches(self, located: Located) -> Mapping[str, str]:
        """The location's own branches, each with the commit at its tip."""
        ...

    def default_branch(self, located: Located) -> str | None:
        """The location's default branch, or None where it does not say."""
        ...

    def first_parents(self, located: Located, shas: Collection[str]) -> Mapping[str, str]:
        """The first parent of each of these commits that has one."""
        ...

    def since(self, located: Located, tip: str, known: Collection[str]) -> Sequence[str]:
        """The commits that led to a tip and to none of the known ones, oldest first, along first parents.

        Known commits that are not there (any more) count for nothing; where none is there, the tip alone is given.
        """
        ...

    def on(self, located: Located, branches: Collection[str], shas: Collection[str]) -> Collection[str]:
        """Those of the commits that are on one of the branches: reachable from its tip, as both were last seen.

        A branch that is not there has no commits, and a commit that is not there (any more) is on none.
        """
        ...

    def tagged(self, located: Located, version: str) -> Collection[str]:
        """The commits that a tag of the location calls so, as versions are spelt (`v1.4.0` is `1.4.0`)."""
        ...

    def describe(self, located: Located, sha: str, branch: str | None) -> Commit:
        """The commit of a full object name that `branches` or `since` gave, as one of a branch."""
        ...

    def snapshot(self, located: Located) -> Commit:
        """The working tree as it lies there, untracked files that git does not ignore included, marked dirty."""
        ...

    def version(self, located: Located, commit: Commit) -> str:
        """The commit's PEP 440 version by its nearest tag (see commits.py); the caller freezes it."""
        ...

    def change(self, located: Located, commit: Commit) -> Change: ...

    def changed_lines(
        self, located: Located, commit: Commit, wanted: Callable[[str], bool]
    ) -> Mapping[str, Sequence[range]]:
        """The lines that a commit adds or alters, by path, for the paths that are wanted; numbers begin with 1.

        Of a commit that is not on the default branch: all that its branch adds, against where it left the default
        branch. Of one that is on it: against its first parent. Of a root, and of a history apart: everything.
        """
        ...

    def files(self, mirror: Path, sha: str) -> CommitFiles: ...

    def read(self, mirror: Path, sha: str, path: str) -> bytes | None:
        """One file of a commit, or None where the commit has no such file."""
        ...

    def discard(self, keep: Collection[Path], before: float) -> int:
        """Remove mirrors outside `keep` that nobody brought near since `before` (seconds since the epoch); how many.

        One that somebody writes to at this moment stays. A mirror that is asked for later is made again.
        """
        ...


# --- the router ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backend:
    """The replicas of one release behind a route. `ports` are on 127.0.0.1; `weight` is in 0…10000 of 10000.

    `mirror` is in the same parts: so many of the route's requests are copied to it, and nobody sees its answers. A
    backend with a mirror has no weight.
    """

    release: str
    version: str
    ports: tuple[int, ...]
    health: str
    weight: int
    mirror: int = 0


@dataclass(frozen=True, slots=True)
class Sticky:
    """By what a route knows a user again: the value of a header or of a cookie of this name.

    At the same weights a user is always with the same release, and a release of rising weight keeps its users. A user
    whom nothing names is split at random, and one without the cookie is given one.
    """

    kind: Literal["header", "cookie"]
    name: str


@dataclass(frozen=True, slots=True)
class Tls:
    """Absolute paths of PEM files of this machine: a certificate with its chain, and its private key."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Route:
    """One environment's address: requests to `port` of 127.0.0.1 are split over the backends by weight.

    The order of the backends matters to sticky users: the one whose weight rises comes first.
    """

    environment: str
    port: int
    backends: tuple[Backend, ...]
    sticky: Sticky | None = None
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What a router has counted since it began, by release; `epoch` is another one whenever it began anew.

    A request counts once its answer has begun, or it is sure that there will be none; health checks never. Errors are
    answers of 5xx, answers that broke off, and requests that got none; what a caller does wrong (4xx) is no error.
    Latencies are of requests answered to the end, by `traffic.EDGES_MS`; they may come a moment after the count, and
    not at all from a router that an older Penstock started. Without a running router the epoch is empty.
    """

    epoch: str
    arms: Mapping[str, Arm]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of an environment with its answer. `release` is the version that answered, empty where none did."""

    release: str
    method: str
    path: str
    request: bytes
    status: int
    answer: bytes


class Router(Protocol):
    """Splits traffic. `apply` is declarative and idempotent: the whole wanted state of the home, every time.

    Every answer carries `x-penstock-release: <version>`. A backend with weight 0 is health-checked and gets no
    requests but copies, where it has a mirror. A request is sent once: nothing is retried. The router serves on after
    our death and comes back with its last state after its own.
    """

    async def apply(self, routes: Sequence[Route]) -> None:
        """Put the state in force; returns when new requests follow it. Raises EngineError where they do not.

        Of these, RouteError says that the state is in force but for some environments whose ports cannot be had: they
        stay as they were, and `apply` with the same routes brings them in force once it can. What is in force already
        is found to be so in some milliseconds. Every other EngineError leaves the whole state as it was.
        """
        ...

    def running(self) -> bool:
        """Whether the router takes requests now, and is kept alive; quick, and never raises for one that is dead."""
        ...

    def insist_on(self, tls: Tls) -> None:
        """Raise EngineError for a certificate that is not to be served with.

        `apply` does so only for one of which no copy serves already: what lies at its paths later holds up nobody.
        """
        ...

    async def healthy(self, release: str) -> int:
        """How many replicas of a backend that was applied the router itself finds healthy now."""
        ...

    async def in_flight(self, release: str) -> int:
        """Requests of a backend that were begun and not yet answered."""
        ...

    async def counted(self, releases: Sequence[str]) -> Counted:
        """What these releases got since the router began; of one that it does not know nothing (an empty `Arm`)."""
        ...

    async def sampled(self, environment: str, share: float, most: int, seconds: float) -> Sequence[Exchange]:
        """Exchanges of an environment, each with this chance: what begins and ends before there are `most`, or in time.

        No request waits for it or fails by it. Left out are Penstock's own requests, and bodies beyond 64 KiB. Whoever
        asks may be killed. One at a time may ask; raises EngineError for a second, and where nothing is routed there.
        """
        ...

    async def stop(self) -> None:
        """End the router; nothing listens afterwards."""
        ...


# --- runtimes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A shell text that the engine has a runner execute, with the variables it needs beside the usual ones.

    `reason` is a sentence for people where there is more to say than that it was not done yet.
    """

    text: str
    variables: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RuntimeRequest:
    """What a pipeline asks of its runtime. `kind` says what `file` is: a path of the commit, or an image's name."""

    kind: Literal["requirements", "lock", "pyproject", "image", "dockerfile"]
    file: str
    python: str | None = None


class Runtimes(Protocol):
    """What steps run in, made from locks and shared between runs by the lock's digest.

    It is a Python environment (its lock names packages with hashes), or a container image (its lock names images by
    digest). Both are an environment in what follows, and have the same `Digest`.

    All slow work is a `Command` that the engine places through a runner, so that it is logged, timed and killed
    like any step; the methods themselves only read small files. The commands may be killed at any point and
    started again; two homes' or runs' commands for the same lock may run at once.
    """

    def files(
        self, request: RuntimeRequest, read: Callable[[str], bytes | None], paths: Collection[str] = ()
    ) -> Mapping[str, bytes]:
        """The commit's files that say what the runtime holds (`-r` and `-c` followed; a build's context), by path.

        `read` gives a file of the commit or None, `paths` are all its files. Raises SourceError naming a file that is
        missing, EngineError where an image is asked for and this machine has no container engine.
        """
        ...

    def key(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Digest:
        """What a resolution depends on: these files, Python version, platform, the person's index settings.

        For an image by its tag: what this machine's engine holds under that tag now, if anything.
        """
        ...

    def resolve(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Command:
        """The command that, in a workspace holding `files`, writes the lock to `penstock.lock`."""
        ...

    def digest(self, request: RuntimeRequest, lock: bytes) -> Digest:
        """The name of the environment of a lock: the lock's content, Python version and platform."""
        ...

    def build(self, request: RuntimeRequest, lock: bytes) -> Command | None:
        """The command that makes the environment of a lock, in a workspace that holds `files`; None where it stands.

        It stands where it is as it was made.

        One that was changed since then is as good as none: the command sets it aside and makes it anew, and
        its `reason` says so.
        """
        ...

    def discard(self, keep: Collection[Digest], before: float) -> int:
        """Remove environments outside `keep` that `build` was not asked for since `before` (epoch seconds); how many.

        What was set aside before then goes too. One that is being made at this moment stays.
        """
        ...

    def variables(self, environment: Digest) -> Mapping[str, str]:
        """What a process needs to use a built environment: VIRTUAL_ENV, and `PATH` as the folder to put in front.

        Nothing for an image: what its processes need is in it.
        """
        ...

    def image(self, environment: Digest) -> str | None:
        """The reference of a built environment that is an image, as a `ProcessSpec` takes it; None for others."""
        ...

    def check(self, python: str | None, strict: Sequence[str], lenient: Sequence[str]) -> Command:
        """The command of the `check` step, in a workspace that holds the files.

        It fails with one line per problem, `file:line: sentence`, where a `strict` path (Python) does not compile,
        and prints warnings only for `lenient` paths (other Python, TOML, JSON, YAML, notebooks).
        """
        ...

    def fingerprint(self, addresses: Sequence[str]) -> Command:
        """The command that prints what stands at addresses of outside data now: a line each, the same while it is.

        It fails with one sentence for an address that cannot be looked at.
        """
        ...


# --- images --------------------------------------------------------------------------------------------------------


class Images(Protocol):
    """Packages as container images of their own: the same package and base give the same image."""

    def minor(self, environment: Digest) -> str:
        """The minor version (`3.11`) of the Python that a built environment is for. Raises EngineError without one."""
        ...

    def command(self, exported: Exported, target: str) -> Command:
        """The command that makes the image and has the container engine hold it under the reference `target`.

        The last line that it prints is a JSON object; its `id` is what a `ProcessSpec` takes. It may be killed at any
        point and started again. Raises EngineError where this machine has no container engine.
        """
        ...

    def name(self, package: Digest) -> str:
        """What the image of a package that this home serves is called: a reference that no other home uses."""
        ...

    def discard(self, keep: Collection[Digest], before: float) -> int:
        """Remove the images by such a name of packages outside `keep`, and what was made for images and not used since.

        `before` is in seconds since the epoch. The bytes that this freed of the home are given; nothing is raised where
        the engine cannot remove an image, as one that a container uses.
        """
        ...
