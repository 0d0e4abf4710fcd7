"""Reading a repository for `serve`: each commit by its own file, as `penstock run` would ask for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.cli.asking import Found, Wish, file_of, project_of, read, run_payload
from penstock.commits import Reach, Trigger, hidden, parse_address
from penstock.engine.contracts import Source
from penstock.engine.triggers import Asked, Sight
from penstock.errors import UsageError
from penstock.store.contract import Values

OPTIONS: Mapping[str, bool | None] = {"step": None, "to": None, "no_deploy": False, "no_cache": False}


@dataclass(frozen=True, slots=True)
class Repository:
    """One `--repo` of `serve`, as the engine's `Reader`. `person` is the person's environment."""

    source: Source
    location: str
    file: str | None
    person: Mapping[str, str]

    @property
    def label(self) -> str:
        return hidden(self.location)

    def glance(self) -> str:
        return self.source.glance(self.location)

    def look(self) -> Sight:
        located = self.source.locate(self.location, uncommitted=False)
        project = project_of(located, file_of(located, Wish(self.location, self.file)), located.name)
        return Sight(project.id, located, self.source.branches(located), self.source.default_branch(located))

    def before(self, sight: Sight) -> Mapping[str, str]:
        parents = self.source.first_parents(sight.located, set(sight.branches.values()))
        return {branch: parents[tip] for branch, tip in sight.branches.items() if tip in parents}

    def since(self, sight: Sight, tip: str, known: Sequence[str]) -> Sequence[str]:
        return self.source.since(sight.located, tip, known)

    def asked(self, sight: Sight, branch: str, sha: str) -> Asked:
        located = sight.located
        commit = self.source.describe(located, sha, branch)
        file = file_of(located, Wish(self.location, self.file))
        found = Found(*read(self.source, replace(located, checkout=None), commit, file))

        def payload(trigger: Trigger) -> Values:
            return run_payload(self.source, found, OPTIONS, self.person, trigger)

        return Asked(found.pipeline, lambda: self.source.change(located, commit), payload)


def place_of(location: str) -> str:
    """A `--repo` as it is watched: a folder by its absolute path. Raises SourceError, UsageError where it is none."""
    address = parse_address(location)
    written = Path(location if "://" not in location else address.url)
    if address.reach is Reach.FOLDER or ("://" not in location and written.exists()):
        if not written.is_dir():
            raise UsageError(f"--repo {location} is no folder: give one inside a Git repository, or a clone URL")
        return str(written.absolute())
    return location
