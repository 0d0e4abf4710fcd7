"""From a person's words to a request: the source brought near, the file read and validated, the commit found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from penstock.artifacts import digest_of
from penstock.commits import Commit, Trigger
from penstock.engine.context import need_of
from penstock.engine.contracts import Located, Source
from penstock.engine.reserving import need_together
from penstock.engine.scheduling import Capacity, Schedule, why_never
from penstock.engine.variables import PASSED_ON
from penstock.errors import NotFoundError, SourceError, UsageError
from penstock.matrices import expand
from penstock.pipelines import Pipeline
from penstock.store.contract import Project

FILE = "penstock.yaml"
NEVER_STORED = frozenset(n for n in PASSED_ON if "proxy" in n.lower())
"""May hold passwords: the coordinator's own are used."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was typed: where, which file, which commit."""

    location: str = "."
    file: str | None = None
    ref: str | None = None
    worktree: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a wish means: the project, its commit and its pipeline."""

    project: Project
    located: Located
    commit: Commit
    pipeline: Pipeline
    notes: tuple[str, ...] = field(default=())


def find(source: Source, wish: Wish) -> Found:
    """Bring the source near and read its pipeline. Raises SourceError, NotFoundError or PipelineError."""
    if wish.worktree and wish.ref is not None:
        raise UsageError("--ref and --worktree exclude each other: a working tree is no commit")
    located = source.locate(wish.location, uncommitted=not wish.worktree)
    if wish.worktree and located.checkout is None:
        raise UsageError(f"--worktree needs a local checkout, and {wish.location} is none")
    commit = source.snapshot(located) if wish.worktree else source.commit(located, wish.ref)
    file = file_of(located, wish)
    return Found(*read(source, located, commit, file), notes=_notes(located, commit, wish))


def file_of(located: Located, wish: Wish) -> str:
    """The pipeline file that a wish means, from the repository's root. Raises UsageError for another path."""
    file = wish.file or _default_file(located, wish)
    check_file(file)
    return file


def read(source: Source, located: Located, commit: Commit, file: str) -> tuple[Project, Located, Commit, Pipeline]:
    """What a commit's own file says. Raises NotFoundError or PipelineError."""
    from penstock.sources.definitions import load

    data = source.read(located.mirror, commit.sha, file)
    if data is None:
        raise NotFoundError(_missing(located, commit, file))
    pipeline = expand(load(data, file))
    return project_of(located, file, pipeline.name), located, commit, pipeline


def project_of(located: Located, file: str, name: str) -> Project:
    """A project is its repository and its file; the name is for display."""
    identity = digest_of("project", [located.identity, file])[:12]
    return Project(identity, name, located.identity, file, located.location)


def check_resources(pipeline: Pipeline, capacity: Capacity) -> None:
    """Raises UsageError for steps and replicas that could never start here."""
    rest = _rest(pipeline, capacity)
    problems = []
    for step in pipeline.steps.values():
        if reason := why_never(need_of(step), capacity):
            problems.append(f"step {step.name} {reason}")
        elif reason := why_never(need_of(step), rest):
            problems.append(f"step {step.name} {reason} beside the replicas of this file's environments")
    for name, environment in pipeline.environments.items():
        if environment.resources is not None:
            reason = why_never(need_together(environment.resources, environment.replicas), capacity)
            if reason is not None:
                problems.append(f"environment {name}, with all its replicas, {reason}")
    if problems:
        raise UsageError("; ".join(problems))


def _rest(pipeline: Pipeline, capacity: Capacity) -> Capacity:
    """What the replicas of all environments together leave to the steps."""
    schedule = Schedule(capacity)
    for number, (name, one) in enumerate(pipeline.environments.items(), 1):
        if one.resources is not None:
            schedule.take((-number, name), need_together(one.resources, one.replicas))
    cpu, memory, gpus = schedule.left()
    return Capacity(max(cpu, 0.0), 0 if memory is None else max(memory, 1), gpus)  # 0 would be: nobody knows


def room_notes(pipeline: Pipeline, capacity: Capacity) -> tuple[str, ...]:
    """What a person should know of environments in which no release can follow another while that one serves."""
    found = []
    for name, one in pipeline.environments.items():
        if one.resources is None or (one.rollout is not None and one.rollout.strategy == "recreate"):
            continue
        reason = why_never(need_together(one.resources, 2 * one.replicas), capacity)
        if reason is not None:
            what = f"two releases of {name} do not fit side by side: together they need more than there is ({reason})"
            found.append(f"{what}; with rollout: recreate the old one ends before the new one starts")
    return tuple(found)


def check_file(file: str) -> None:
    """Refuse a pipeline file that lies outside of the repository. Raises UsageError."""
    parts = PurePosixPath(file).parts
    if not parts or file.startswith("/") or ".." in parts:
        raise UsageError(f'--file "{file}" is not a path inside the repository: give it from the repository\'s root')


def _default_file(located: Located, wish: Wish) -> str:
    """`penstock.yaml` of the folder that was named, where it has one, else of the repository's root."""
    if located.checkout is not None:
        folder = Path(wish.location).absolute().resolve()
        root = located.checkout.resolve()
        if folder != root and folder.is_relative_to(root) and (folder / FILE).is_file():
            return str((folder / FILE).relative_to(root))
    return FILE


def _missing(located: Located, commit: Commit, file: str) -> str:
    if located.checkout is not None and (located.checkout / file).is_file():
        return f"{file} is not committed: commit it, or use --worktree"
    return f"commit {commit.short} of {located.name} has no {file}: penstock init writes one, or name it with --file"


def _notes(located: Located, commit: Commit, wish: Wish) -> tuple[str, ...]:
    if wish.worktree or wish.ref is not None or not located.uncommitted:
        return ()
    count = len(located.uncommitted)
    what = f"{count} uncommitted change{'s are' if count > 1 else ' is'}"
    return (f"{what} not part of this run, which builds commit {commit.short}: commit, or use --worktree",)


def run_payload(
    source: Source,
    found: Found,
    options: Mapping[str, Any],
    person: Mapping[str, str],
    trigger: Trigger = Trigger.MANUAL,
) -> dict[str, Any]:
    """The request for a run of what was found."""
    named = {name for step in found.pipeline.steps.values() for name in step.env}
    kept = {k: v for k, v in person.items() if k in (PASSED_ON - NEVER_STORED) | named or k.startswith("LC_")}
    return {
        "project": asdict(found.project),
        "commit": asdict(found.commit),
        "change": list(source.change(found.located, found.commit).paths),
        "version": source.version(found.located, found.commit),
        "mirror": str(found.located.mirror),
        "pipeline": found.pipeline.model_dump(mode="json", exclude_defaults=True),
        "options": {**options, "environment": kept},
        "trigger": trigger,
        "notes": list(found.notes),
    }


def current_project(source: Source, known: list[Project], named: str | None) -> Project:
    """The project a verb acts on: `--project` (name, id, or `.`), else the one of the current folder.

    Raises NotFoundError or UsageError where that is not exactly one.
    """
    here = named is None or named == "."
    matching = _here(source, known) if here else [p for p in known if named in {p.name, p.id}]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(sorted({f"{p.name} ({p.id})" for p in matching or known})) or "none yet: penstock run makes one"
    if not matching:
        what = f'no project "{named}" in this home' if named else "this folder is no project that this home knows"
        raise NotFoundError(f"{what}; --project takes one of: {names}")
    raise UsageError(f"more than one project fits: say which with --project: {names}")


def _here(source: Source, known: list[Project]) -> list[Project]:
    try:
        located = source.locate(".")
    except SourceError:
        return known if len(known) == 1 else []
    return [p for p in known if p.identity == located.identity]


def project_to_be(source: Source, known: list[Project], named: str | None) -> Project:
    """As `current_project`, but the current folder's may be one that this home does not know yet: as `run` makes it."""
    if named not in {None, "."}:
        return current_project(source, known, named)
    wish = Wish()
    try:
        located = source.locate(wish.location)
    except SourceError:
        if not known:
            raise
        return current_project(source, known, named)
    expected = project_of(located, _default_file(located, wish), located.name)
    ours = {p.id: p for p in known if p.identity == located.identity}
    there = located.checkout is not None and (located.checkout / expected.file).is_file()
    if expected.id in ours or there or not ours:
        return ours.get(expected.id, expected)
    return current_project(source, known, named)
