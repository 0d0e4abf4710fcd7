"""Pipeline × commit → ordered steps with cache keys, and why each would run or not.

A key is the digest of its *ingredients*; the ingredients are kept beside every result, so that a miss can say what
differs from last time.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from statistics import median

from penstock.artifacts import Digest, File, Tree, digest_of, matches
from penstock.commits import Commit
from penstock.opponents import SERVE, opponents
from penstock.parts import SOURCES, RecordedRequests, When
from penstock.patterns import branch_matches, has_wildcard
from penstock.pipelines import Outputs, Package, Pipeline, Step, interpolate, needs, order, request_needs, stages
from penstock.recordings import STEP as REPLAY

CONTRACT = 1
"""Raised when the step contract changes in a way that makes old results wrong."""


class StepKind(StrEnum):
    """What executes a step: `step` is the user's own command, the others are always Penstock's."""

    CHECK = "check"
    LOCK = "lock"
    RUNTIME = "runtime"
    FINGERPRINT = "fingerprint"
    STEP = "step"
    PACKAGE = "package"
    SERVE = "serve"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan. `needs` are names of planned steps that must be green first."""

    name: str
    kind: StepKind
    stage: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All steps of a pipeline in an order that respects `needs`; the file's order decides ties."""

    steps: tuple[PlannedStep, ...]

    @cached_property
    def _by_name(self) -> Mapping[str, PlannedStep]:
        return {s.name: s for s in self.steps}

    def __getitem__(self, name: str) -> PlannedStep:
        return self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.steps)

    def only(self, name: str) -> frozenset[str]:
        """A step and all that it needs, directly or not."""
        wanted: set[str] = set()
        queue = [name]
        while queue:
            current = queue.pop()
            if current not in wanted:
                wanted.add(current)
                queue.extend(self[current].needs)
        return frozenset(wanted)


def plan(pipeline: Pipeline) -> Plan:
    """The steps of a pipeline with Penstock's own around them.

    `check` comes first, then `lock` (which packages, with hashes) and `runtime` (the environment made of them),
    before every other step. `serve` is the package's private replica, started when a step that needs the package
    has to run; `replay`, the last step, asks it recorded requests where the package has some. A step with outside
    data comes after a fingerprint of it, which its cells share.
    """
    outputs = Outputs(pipeline)
    wanted = needs(pipeline, outputs)
    stage_of = stages(pipeline, wanted, outputs)
    first = [PlannedStep("check", StepKind.CHECK, "build", ())]
    if has_runtime(pipeline):
        first.append(PlannedStep("lock", StepKind.LOCK, "build", ("check",)))
        first.append(PlannedStep("runtime", StepKind.RUNTIME, "build", ("lock",)))
    ground = (first[-1].name,)
    rest: list[PlannedStep] = []
    fingerprints: set[str] = set()
    positions = {name: i for i, name in enumerate(order(pipeline, wanted))}
    for name in positions:
        own = tuple(sorted(wanted[name], key=positions.__getitem__))
        if name == "package":
            rest.append(PlannedStep(name, StepKind.PACKAGE, "build", ground + own))
            if pipeline.package is not None and pipeline.package.serve is not None and _is_tested(pipeline, wanted):
                serving = dict.fromkeys((SERVE, *(one.serve for one in opponents(pipeline).values())))
                rest += (PlannedStep(n, StepKind.SERVE, "test", ("package",)) for n in serving)
        else:
            step = pipeline.steps[name]
            outside = (fingerprint_name(step),) if step.external or step.fingerprint else ()
            rest += (
                PlannedStep(n, StepKind.FINGERPRINT, stage_of[name], ground) for n in outside if n not in fingerprints
            )
            fingerprints.update(outside)
            rest.append(PlannedStep(name, StepKind.STEP, stage_of[name], ground + outside + own))
    if is_replayed(pipeline):
        writers = sorted(request_needs(pipeline, outputs), key=positions.__getitem__)
        rest.append(PlannedStep(REPLAY, StepKind.REPLAY, "test", ("package", *writers)))
    return Plan((*first, *rest))


def fingerprint_name(step: Step) -> str:
    """The planned step that tells what a step's outside data is; a dot is in no name of the file."""
    return f"{step.family}.fingerprint"


def _is_tested(pipeline: Pipeline, wanted: Mapping[str, frozenset[str]]) -> bool:
    return is_replayed(pipeline) or any("package" in names for names in wanted.values())


def is_replayed(pipeline: Pipeline) -> bool:
    """Whether the package is served, and asked recorded requests."""
    package = pipeline.package
    return package is not None and package.serve is not None and package.requests is not None


def has_runtime(pipeline: Pipeline) -> bool:
    """Whether the pipeline asks for an environment of its own."""
    return pipeline.runtime is not None and any(getattr(pipeline.runtime, key) for key in SOURCES)


def why_not_wanted(when: When, commit: Commit, change: Iterable[str]) -> str | None:
    """Why a step's condition on branches and paths does not hold for a commit, in words, or None where it does.

    `change` are the paths that the commit touches. A commit is on a branch if it is reachable from its tip.
    """
    if when.branches is not None and not any(branch_matches(p, b) for p in when.branches for b in commit.branches):
        return f"its condition: commit {commit.short} is not on {' or '.join(when.branches)}"
    if when.paths is not None and not any(matches(p, path) for p in when.paths for path in change):
        return f"its condition: the change touches none of {', '.join(when.paths)}"
    return None


def refreshed(pipeline: Pipeline, planned: Plan, trigger: str) -> frozenset[str]:
    """The steps that reuse no result under a trigger: those that are `fresh` under it, and all after them."""
    found = {name for name, step in pipeline.steps.items() if trigger in step.fresh}
    for step in planned.steps if found else ():
        if step.kind in {StepKind.STEP, StepKind.PACKAGE, StepKind.REPLAY} and not found.isdisjoint(step.needs):
            found.add(step.name)
    return frozenset(found)


UNKNOWN = 1.0
"""Seconds that a step is taken to last where nothing is known of any."""


def remaining(planned: Plan, durations: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each step the seconds of the longest path from its start to the plan's end.

    `durations` are past ones by step; the median of a step's is its estimate, and that of all for one without.
    """
    known = {name: median(values) for name, values in durations.items() if values}
    usual = median(known.values()) if known else UNKNOWN
    users: dict[str, list[str]] = {s.name: [] for s in planned.steps}
    for step in planned.steps:
        for need in step.needs:
            users[need].append(step.name)
    paths: dict[str, float] = {}
    for step in reversed(planned.steps):
        after = max((paths[user] for user in users[step.name]), default=0.0)
        paths[step.name] = known.get(step.name, usual) + after
    return paths


# --- inputs --------------------------------------------------------------------------------------------------------


def step_inputs(step: Step, commit: Tree, outputs: Tree) -> Tree:
    """The files that a step's workspace holds: of the commit and of the outputs of the steps it needs."""
    if step.inputs is None:
        return commit.merge(outputs)
    return commit.select(step.inputs).merge(outputs.select(step.inputs))


def missing_inputs(pipeline: Pipeline, commit: Tree) -> list[str]:
    """A sentence for each input that names no file of the commit and no step's output."""
    outputs, known = Outputs(pipeline), _Names(commit)
    wanted = {(s.family, p): f"step {s.family}: the input" for s in pipeline.steps.values() for p in s.inputs or ()}
    if pipeline.package is not None:
        wanted.update({("package", pattern): "package:" for pattern in pipeline.package.contents})
    if pipeline.package is not None and pipeline.package.requests is not None:
        wanted["package.requests", pipeline.package.requests.file] = "package.requests:"
    probed = {name: e.probe.requests for name, e in pipeline.environments.items() if e.probe is not None}
    wanted.update({(f"{name}.probe", file): f"environments.{name}.probe:" for name, file in probed.items()})
    return [
        f'{what} "{pattern}" names no file of this commit and no output'
        for (_, pattern), what in wanted.items()
        if not outputs.owners(pattern) and not known.has(pattern)
    ]


class _Names:
    """What a commit's paths are called: most patterns are a file or folder, which need not be looked for."""

    def __init__(self, commit: Tree) -> None:
        self._commit = commit
        self._found: dict[str, bool] = {}
        self._folders: set[str] = set()
        for path in commit:
            folder = path.rpartition("/")[0]
            while folder and folder not in self._folders:
                self._folders.add(folder)
                folder = folder.rpartition("/")[0]

    def has(self, pattern: str) -> bool:
        if pattern not in self._found:
            self._found[pattern] = self._look(pattern)
        return self._found[pattern]

    def _look(self, pattern: str) -> bool:
        if has_wildcard(pattern) or pattern == ".":
            return any(matches(pattern, path) for path in self._commit)
        return pattern.rstrip("/") in self._folders or pattern in self._commit


def checked_files(pipeline: Pipeline, commit: Tree) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `check` reads: Python files that must compile, and other files that only warn.

    Strict are the inputs of steps, the code of the package and what lies under `runtime.path`.
    """
    used: list[str] = [p for step in pipeline.steps.values() for p in step.inputs or ()]
    used += pipeline.package.code if pipeline.package else ()
    used += pipeline.runtime.path if pipeline.runtime else ()
    kept = [p for p, e in commit.entries.items() if isinstance(e, File) and not _any(pipeline.check.exclude, p)]
    strict = tuple(p for p in kept if p.endswith(".py") and _any(used, p))
    lenient = tuple(
        p for p in kept if p.endswith((".py", ".toml", ".json", ".ipynb", ".yaml", ".yml")) and p not in set(strict)
    )
    return strict, lenient


def _any(patterns: Iterable[str], path: str) -> bool:
    return any(matches(p, path) for p in patterns)


# --- keys ----------------------------------------------------------------------------------------------------------

Ingredients = Mapping[str, str | None]


@lru_cache(maxsize=1)
def this_platform() -> str:
    """Operating system, machine and C library: results of one are not taken for another."""
    libc = "-".join(platform.libc_ver())
    return f"{platform.system()} {platform.machine()} {libc}".lower()


def step_ingredients(
    step: Step,
    *,
    inputs: Tree,
    pipeline: Pipeline,
    version: str,
    commit: str,
    environment: Digest | None,
    package: Digest | None,
    outside: Digest | None = None,
) -> dict[str, str | None]:
    """Everything that a step's result depends on, each part by its digest or plain text.

    `environment` names the runtime's lock, `package` the package for a step that needs it, `outside` the state of
    outside data for a step that reads some.
    """
    runtime = pipeline.runtime
    declared = {**pipeline.variables, **step.variables}
    values = {k: interpolate(v, pipeline.variables, version, commit) for k, v in declared.items()}
    files = {
        "outputs": step.outputs,
        "metrics": step.metrics,
        "report": step.report,
        "benchmark": step.benchmark,
        "evidence": step.evidence.model_dump() if step.evidence else None,
        **({} if step.coverage is None else {"coverage": step.coverage}),
    }
    return {
        "command": f"{step.shell}: {interpolate(step.run, pipeline.variables, version, commit)}",
        "inputs": inputs.digest,
        "runtime": environment,
        "path": " ".join(runtime.path) if runtime else "",
        "python": runtime.python if runtime else None,
        "variables": digest_of("variables", values),
        "files": digest_of("files", files),
        "package": package if "package" in step.needs else None,
        "outside": outside,
        "platform": this_platform(),
        "contract": str(CONTRACT),
        **({} if step.network else {"network": "none"}),
    }


def key_of(ingredients: Ingredients) -> Digest:
    return digest_of("action", dict(ingredients))


_NOT_THE_WAY = frozenset({"package", "files", "stakes"})


def way_of(ingredients: Ingredients) -> Digest:
    """How a step asks, whatever package it asks and whatever else it writes: answers in two ways are not compared."""
    return digest_of("way", {name: value for name, value in ingredients.items() if name not in _NOT_THE_WAY})


def check_ingredients(pipeline: Pipeline, commit: Tree) -> dict[str, str | None]:
    """What the result of `check` depends on."""
    strict, lenient = checked_files(pipeline, commit)
    files = Tree({p: commit.entries[p] for p in (*strict, *lenient)})
    return {
        "inputs": files.digest,
        "strict": digest_of("paths", strict),
        "python": pipeline.runtime.python if pipeline.runtime else None,
        "platform": this_platform(),
    }


def lock_ingredients(files: Tree, request: Digest) -> dict[str, str | None]:
    """What a lock depends on: the files that ask, and the request's own key (Python, platform, index settings)."""
    return {"inputs": files.digest, "request": request}


def requests_of(pipeline: Pipeline) -> RecordedRequests:
    """The recorded requests of a pipeline that `is_replayed`."""
    if pipeline.package is None or pipeline.package.requests is None:
        raise AssertionError("a replay without requests")
    return pipeline.package.requests


def request_files(pipeline: Pipeline, files: Tree) -> Tree:
    """The file of the package's recorded requests alone; empty where it is not among the files."""
    path = requests_of(pipeline).file
    entry = files.entries.get(path)
    return Tree({path: entry}) if isinstance(entry, File) else Tree()


def replay_ingredients(
    pipeline: Pipeline, files: Tree, package: Digest | None, version: str, commit: str
) -> dict[str, str | None]:
    """What a replay depends on: the requests (`files` holds theirs alone), how they are asked, and what is served."""
    wanted, serve = requests_of(pipeline), pipeline.package.serve if pipeline.package else None
    values = {k: interpolate(v, pipeline.variables, version, commit) for k, v in pipeline.variables.items()}
    return {
        "command": interpolate(serve or "", pipeline.variables, version, commit),
        "inputs": files.digest,
        "tolerance": repr(wanted.tolerance),
        "repeat": str(wanted.repeat),
        "variables": digest_of("variables", values),
        "package": package,
        "platform": this_platform(),
        "contract": str(CONTRACT),
    }


def own_key(name: str, ingredients: Ingredients) -> Digest:
    """The key of one of Penstock's own steps."""
    return digest_of("action", {"step": name, **ingredients})


_WORDS = {
    "command": "its command changed",
    "runtime": "the locked packages of the runtime changed",
    "path": "runtime.path changed",
    "python": "the Python version changed",
    "variables": "its variables changed",
    "files": "what it declares to write changed",
    "package": "the package changed",
    "tolerance": "the tolerance changed",
    "repeat": "how often it asks changed",
    "outside": "its outside data changed",
    "stakes": "its gates, or what they compare with, changed",
    "network": "whether it has a network changed",
    "platform": "the platform changed",
    "contract": "Penstock's step contract changed",
    "strict": "which files must compile changed",
    "request": "what is asked of the runtime changed",
}


def why_run(now: Ingredients, before: Ingredients | None, changed: Iterable[str] = ()) -> str:
    """Why a step has no result to reuse: what differs from the last time it passed.

    `changed` are the input paths that differ, where they are known.
    """
    if before is None:
        return "no earlier result"
    reasons = [words for name, words in _WORDS.items() if now.get(name) != before.get(name)]
    if now.get("inputs") != before.get("inputs"):
        reasons.insert(0, _changed_words(sorted(changed)))
    return "; ".join(reasons) or "its earlier result is gone from the cache"


def _changed_words(paths: list[str]) -> str:
    if not paths:
        return "its inputs changed"
    shown = ", ".join(paths[:3])
    return f"{shown} changed" if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more changed"


def changed_paths(now: Tree, before: Tree) -> list[str]:
    """Paths that differ between two trees, in order."""
    return [p for p in sorted({*now, *before}) if now.entries.get(p) != before.entries.get(p)]


def package_needs(package: Package) -> tuple[str, ...]:
    """The patterns of a package: its model and its code."""
    return (*(package.model or ()), *package.code)
