"""Baselines: what a gate compares with, found among releases and runs.

Red, errored, canceled, untrusted and dirty runs never become one, nor do runs of a single step.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.baselines import Origin, missing, named, none_sound
from penstock.commits import Commit, nearest
from penstock.engine.contracts import Located
from penstock.engine.world import World
from penstock.pipelines import BaselineName, Pipeline
from penstock.store.baselines import Candidate
from penstock.store.contract import Release, Run

BATCH = 50
"""How many runs are looked at first; each further look is at eight times as many."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A baseline that was found. `words` name it in a sentence: `the champion 1.2`, `branch main (1.2)`.

    `run` is the run that built it, `package` the digest of its package, None where it has none. `origin` is None where
    it was not kept; `since` is when it passed or was released, in seconds since the epoch.
    """

    words: str
    version: str
    run: int
    package: str | None
    sha: str = ""
    since: float | None = None
    origin: Origin | None = field(default=None, compare=False)


def champion_environment(pipeline: Pipeline) -> str | None:
    """The environment whose release is the champion: the named one, else the one that no other needs."""
    if pipeline.champion is not None:
        return pipeline.champion
    needed = {name for e in pipeline.environments.values() for name in e.needs}
    last = [name for name in pipeline.environments if name not in needed]
    return last[0] if len(last) == 1 else None


def located(world: World, run: Run) -> Located:
    """The repository as it was brought near for a run; which location asked is in the run's request."""
    project = world.store.requests.get(run.request).payload["project"]
    return Located(project["identity"], project["name"], world.home.path / run.mirror, project["location"])


# --- finding one ---------------------------------------------------------------------------------------------------


class Asking(Protocol):
    """A run for which baselines are looked for."""

    @property
    def world(self) -> World: ...
    @property
    def run(self) -> Run: ...
    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def commit(self) -> Commit: ...


class Baselines:
    """Finds the baselines of one run, or, with `for_next`, those that a run of the next commit would find now."""

    def __init__(self, asking: Asking, *, for_next: bool = False) -> None:
        self._world, self._run, self._pipeline = asking.world, asking.run, asking.pipeline
        self._commit = asking.commit
        self._store = asking.world.store
        self._below = None if for_next else self._run.id
        self._other_than = None if for_next else self._commit.sha

    def find(self, name: BaselineName) -> Reference | None:
        """What a name stands for now; None where there is none yet. A fixed number is none of ours.

        Raises SourceError where the repository cannot be asked which commits are on a branch.
        """
        if name.kind == "fixed":
            return None
        if self._is_release(name):
            release = self._release(name)
            return None if release is None else self._released(name, release)
        found = self._of_version(name)[0] if name.kind == "version" else self._newest_on(self._branches(name))
        return None if found is None else self._reference(name, found)

    def lacking(self, name: BaselineName) -> str:
        """Why a name stands for nothing, as a clause. Raises SourceError."""
        if self._is_release(name):
            return missing(name)
        if name.kind == "version":
            return self._why_none(name, self._of_version(name)[1])
        branches = self._branches(name)
        if not branches:
            whose = "the repository has no default branch" if name.kind == "champion" else "its commit is on no branch"
            return f"{missing(name)}: {whose}"
        newest = self._any_on(branches)
        if name.kind != "champion":
            return self._why_none(name, newest)
        return f"{missing(name)}: {self._why_none(BaselineName(name=f'branch:{branches[0]}'), newest)}"

    def _why_none(self, name: BaselineName, newest: Candidate | None) -> str:
        if newest is not None and newest.flaw is not None:
            return none_sound(name, newest.run, newest.flaw)
        return missing(name) + self._hint(name)

    def _hint(self, name: BaselineName) -> str:
        """The branch that was meant, where the named one is not there."""
        if name.kind != "branch":
            return ""
        known = {*self._world.source.branches(self._located), *self._commit.branches, self._commit.default_branch or ""}
        near = nearest(name.detail, known - {""}) if name.detail not in known else None
        return "" if near is None else f' (nearest branch: "{near}")'

    # --- releases

    def _is_release(self, name: BaselineName) -> bool:
        return name.kind == "champion" and bool(name.detail or self._pipeline.environments)

    def _release(self, name: BaselineName) -> Release | None:
        environment = name.detail or champion_environment(self._pipeline)
        return None if environment is None else self._store.releases.serving(self._run.project, environment)

    def _released(self, name: BaselineName, release: Release) -> Reference:
        return Reference(
            words=named(name, self._told(release.version, release.run)),
            version=release.version,
            run=release.run,
            package=release.package,
            sha=str(release.spec.get("commit", "")),
            since=release.since,
            origin=self._store.baselines.origin(release.run),
        )

    # --- runs

    def _branches(self, name: BaselineName) -> Sequence[str]:
        if name.kind == "branch":
            return (name.detail,)
        if name.kind == "previous":
            return self._commit.branches
        return () if self._commit.default_branch is None else (self._commit.default_branch,)

    @property
    def _located(self) -> Located:
        return located(self._world, self._run)

    def _newest_on(self, branches: Sequence[str]) -> Candidate | None:
        """The newest sound run before this one of another commit on one of the branches."""
        located, below, size = self._located, self._below, BATCH
        while branches:
            sound = self._store.baselines.sound(self._run.project, size, below=below, other_than=self._other_than)
            there = self._world.source.on(located, branches, {c.sha for c in sound})
            found = next((c for c in sound if c.sha in there), None)
            if found is not None or len(sound) < size:
                return found
            below, size = sound[-1].run, 8 * size
        return None

    def _any_on(self, branches: Sequence[str]) -> Candidate | None:
        """The newest run on the branches, whatever became of it, among the last few hundred.

        The commit of a working tree is on no branch: it counts for those that it was made on.
        """
        some = self._store.baselines.any(self._run.project, 8 * BATCH, below=self._below, other_than=self._other_than)
        there = self._world.source.on(self._located, branches, {c.sha for c in some})
        return next((c for c in some if c.sha in there or (c.dirty and set(branches) & set(c.branches))), None)

    def _of_version(self, name: BaselineName) -> tuple[Candidate | None, Candidate | None]:
        """The newest sound run of a version, and the newest one at all; a later tag names its commit's runs too."""
        store, project = self._store.baselines, self._run.project
        for shas in self._tagged(name.detail):
            rows = store.of_version(project, name.detail, shas, below=self._below)
            if rows:
                return next((c for c in rows if c.flaw is None), None), max(rows, key=lambda c: c.run)
        return None, None

    def _tagged(self, version: str) -> Iterator[Collection[str]]:
        """The commits that a tag calls so: none at first, for the version itself comes before."""
        yield ()
        yield self._world.source.tagged(self._located, version)

    def _reference(self, name: BaselineName, found: Candidate) -> Reference:
        return Reference(
            words=named(name, self._told(found.version, found.run)),
            version=found.version,
            run=found.run,
            package=found.package,
            sha=found.sha,
            since=found.ended,
            origin=self._store.baselines.origin(found.run),
        )

    def _told(self, version: str, run: int) -> str:
        """The version, with the run where that tells it from our own."""
        return f"{version} of run {run}" if self._below is not None and version == self._run.version else version
