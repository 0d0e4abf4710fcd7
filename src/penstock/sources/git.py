"""Sources that are Git repositories: a local folder or a clone URL becomes a commit, its files and its version."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from penstock.commits import (
    Address,
    Change,
    Commit,
    Reach,
    Revision,
    choose_default_branch,
    folder_address,
    nearest,
    next_version,
    parse_address,
    parse_revision,
    printable,
    rewritten,
    title_of,
    version_tags,
)
from penstock.engine.contracts import Located
from penstock.errors import SourceError
from penstock.sources import git_branches, git_changes, git_checkouts
from penstock.sources.git_checkouts import Repository, Settings, exists, find_repository, read_settings
from penstock.sources.git_commands import Git, apart
from penstock.sources.git_files import (
    BlobDigests,
    GitCommitFiles,
    MemoryBlobDigests,
    blob,
    commit_files,
    lfs_pointers,
)
from penstock.sources.git_mirrors import Mirrors, make_folder, seen_afar, seen_here, space

__all__ = ["BlobDigests", "GitSource", "MemoryBlobDigests", "lfs_pointers"]

READ_LIMIT = (2 << 20) + 1


class GitSource:
    """The engine's `Source`, by the git command.

    `folder` holds the bare mirrors and is made when needed; `environment` is the person's whole environment;
    `known` remembers digests of blobs.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], known: BlobDigests) -> None:
        self._folder, self._known = folder.absolute(), known
        self._git = Git(environment)
        self._mirrors = Mirrors(self._git, self._folder)

    # --- near ------------------------------------------------------------------------------------------------------

    def locate(self, location: str, *, uncommitted: bool = True) -> Located:
        """Bring a local path or clone URL near (mirror made or brought up to date). Raises SourceError.

        What is `uncommitted` takes a look at every file of a working tree; without it none is told.
        """
        address = self._address(location)
        if address.reach is not Reach.FOLDER:
            return self._locate_afar(address)
        return self._locate_here(address, uncommitted=uncommitted)

    def _address(self, location: str) -> Address:
        address = parse_address(location)
        looks_remote = "://" not in location and address.reach is Reach.SSH
        if looks_remote and exists(Path(location)):
            address = folder_address(location)
        return address if address.reach is Reach.FOLDER else self._after_rules(address)

    def _after_rules(self, address: Address) -> Address:
        """What the person's `insteadOf` settings make of a clone URL; git applies them too, so it gets it as it was."""
        make_folder(self._folder)
        if address.secret is not None:
            return address  # a URL with its own password is nobody's abbreviation
        rules = read_settings(self._git, self._folder, apart(self._folder)).rules
        changed = parse_address(rewritten(address.url, rules))
        if changed.reach is Reach.FOLDER:
            return changed
        return replace(changed, url=address.url)

    def _locate_afar(self, address: Address, identity: str | None = None) -> Located:
        seen = seen_afar(self._git, address, self._folder)
        mirror = self._mirrors.bring(address, identity or address.identity, seen)
        return Located(address.identity, address.name, mirror, address.url)

    def _locate_here(self, address: Address, identity: str | None = None, *, uncommitted: bool = True) -> Located:
        """Bring a folder near, into the mirror of `identity` where it is the origin of a clone that lacks history."""
        repository = find_repository(self._git, Path(address.url))
        settings = read_settings(self._git, repository.folder)
        origin = None if identity else _origin(repository, settings)
        project = origin or folder_address(str(repository.common))
        here = folder_address(str(repository.folder))
        head = (repository.head, repository.branch)
        seen = seen_here(self._git, repository.folder, head, bare=repository.checkout is None)
        hollow = repository.shallow or settings.partial
        first = (lambda: self._complete(repository, origin)) if hollow else None
        mirror = self._mirrors.bring(here, identity or project.identity, seen, first)
        changed = self._uncommitted(repository, settings) if uncommitted else ()
        return Located(project.identity, project.name, mirror, here.url, repository.checkout, changed)

    def _uncommitted(self, repository: Repository, settings: Settings) -> tuple[str, ...]:
        if repository.checkout is None:
            return ()
        return git_checkouts.uncommitted(self._git, repository, self._git.settings(settings.harmless()))

    def _complete(self, repository: Repository, origin: Address | None) -> None:
        """Bring the origin of a shallow or partial clone near, whose history the clone lacks."""
        what = f"{repository.folder} is a shallow or partial clone, and versions count all commits"
        if origin is None:
            raise SourceError(f"{what}: it has no origin to complete it from, so clone it again in full")
        try:
            if origin.reach is Reach.FOLDER:
                self._locate_here(origin, origin.identity)
            else:
                self._locate_afar(self._after_rules(origin), origin.identity)
        except SourceError as error:
            raise SourceError(f"{what}: run `git fetch --unshallow` in it (its origin was tried: {error})") from error

    # --- commits ---------------------------------------------------------------------------------------------------

    def commit(self, located: Located, ref: str | None) -> Commit:
        """The commit of a branch, tag or object name, with steps back (`main~2`); None means HEAD.

        Raises SourceError where there is none, or more than one.
        """
        revision = parse_revision("HEAD" if ref is None else ref)
        sha, branch = self._resolve(located, revision)
        return self.describe(located, sha, branch)

    def _resolve(self, located: Located, revision: Revision) -> tuple[str, str | None]:
        """The commit's name, and the branch where the revision is just a branch."""
        name = revision.name
        if name == "HEAD":
            full, branch = self._head(located)
        else:
            full, branch = self._reference(located, name)
        sha = self._peel(located, full, revision.steps) if full else self._object(located, revision)
        if sha is None:
            raise self._missing(located, name + revision.steps)
        return sha, None if revision.steps else branch

    def _head(self, located: Located) -> tuple[str | None, str | None]:
        state = self._mirrors.state(located.mirror, located.location)
        mine = space(located.location)
        if f"{mine}/HEAD" in self._existing(located, ["HEAD"]):
            return f"{mine}/HEAD", state.head
        branch = self._default_branch(located)
        if branch is None:
            raise SourceError(f"{located.location} has no HEAD and no default branch: say which by --ref")
        return f"{mine}/heads/{branch}", branch

    def _reference(self, located: Located, name: str) -> tuple[str | None, str | None]:
        """The reference in the mirror that a name stands for, and its branch; None where no reference has it."""
        mine = space(located.location)
        short = name.removeprefix("refs/")
        branch = short.removeprefix("heads/").removeprefix("remotes/").removeprefix("origin/")
        # In git's own order; a branch that only the origin has comes last.
        chosen = [short, f"heads/{name}", f"tags/{name}"] if short.startswith(("heads/", "tags/")) else []
        chosen = chosen or [f"tags/{name}", f"heads/{name}", f"remotes/{branch}"]
        existing = self._existing(located, chosen)
        found = [f"{mine}/{c}" for c in chosen if f"{mine}/{c}" in existing]
        if len(found) > 1 and "/tags/" in found[0] and "/heads/" in found[1]:
            self._refuse_two(located, name, found[:2])
        if not found:
            return None, None
        return found[0], None if "/tags/" in found[0] else found[0].removeprefix(f"{mine}/").partition("/")[2]

    def _refuse_two(self, located: Located, name: str, found: list[str]) -> None:
        if len({self._peel(located, full, "") for full in found}) > 1:
            raise SourceError(
                f'"{name}" is a branch and a tag of {located.location}: write refs/heads/{name} or refs/tags/{name}'
            )

    def _existing(self, located: Located, names: list[str]) -> set[str]:
        mine = space(located.location)
        return set(self._refs(located, *(f"{mine}/{name}" for name in names)))

    def _refs(self, located: Located, *patterns: str, options: tuple[str, ...] = ()) -> list[str]:
        form = "--format=%(refname)"
        return self._in(located.mirror, "for-each-ref", form, *options, *patterns)

    def _in(self, mirror: Path, *arguments: str) -> list[str]:
        return self._git.run("--git-dir=.", *arguments, folder=mirror).lines()

    def _peel(self, located: Located, full: str, steps: str) -> str | None:
        asked = ("rev-parse", "--verify", "--end-of-options", f"{full}^{{commit}}{steps}")
        answer = self._git.run("--git-dir=.", *asked, folder=located.mirror, codes=None)
        if answer.code and "ambiguous" in answer.complaint:
            raise SourceError(f'"{full}" is the beginning of more than one commit\'s name: give more of it')
        return answer.lines()[0] if answer.code == 0 else None

    def _object(self, located: Located, revision: Revision) -> str | None:
        """A commit by its own name: in the mirror, else asked of the location itself."""
        if not revision.may_be_object:
            return None
        name = revision.name.lower()
        found = self._peel(located, name, revision.steps)
        if found is not None:
            return found
        full = self._full_name(located, name)
        if full is None:
            return None
        address = parse_address(located.location)
        if address.reach is not Reach.FOLDER:
            address = self._after_rules(address)
        kept = self._mirrors.keep(located.mirror, address, full)
        return self._peel(located, full, revision.steps) if kept else None

    def _full_name(self, located: Located, name: str) -> str | None:
        if len(name) in {40, 64}:
            return name
        folder = Path(located.location)
        if not folder.is_absolute():
            return None
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        answer = self._git.run(*asked, folder=folder, codes=None)
        return answer.lines()[0] if answer.code == 0 else None

    def _missing(self, located: Located, wanted: str) -> SourceError:
        mine = space(located.location)
        names = {n.removeprefix(f"{mine}/").partition("/")[2] for n in self._refs(located, mine)} - {""}
        near = nearest(wanted, (n for n in names if printable(n) == n))
        hint = f'; nearest: "{near}"' if near else ""
        return SourceError(f'no branch, tag or commit named "{wanted}" in {located.location}{hint}')

    def describe(self, located: Located, sha: str, branch: str | None) -> Commit:
        """The commit of a full object name that is there, as one of a branch."""
        form = "--format=%an <%ae>%x00%cI%x00%B"
        answer = self._git.run(
            "--git-dir=.", "log", "-1", "--no-patch", "--no-notes", "--no-color", form, sha, folder=located.mirror
        )
        author, when, message = answer.out.decode("utf-8", "replace").split("\0", 2)
        return Commit(
            sha=sha,
            branch=branch,
            branches=self._branches(located, ("--contains", sha)),
            default_branch=self._default_branch(located),
            author=printable(author),
            title=title_of(message),
            committed_at=when,
        )

    def _branches(self, located: Located, options: tuple[str, ...] = ()) -> tuple[str, ...]:
        places = [f"{space(located.location)}/{kind}/" for kind in ("heads", "remotes")]
        names = self._refs(located, *places, options=options)
        return tuple(sorted({n.removeprefix(places[0]).removeprefix(places[1]) for n in names}))

    def _default_branch(self, located: Located) -> str | None:
        known = self._mirrors.state(located.mirror, located.location).default
        return choose_default_branch(known, () if known else self._branches(located))

    def snapshot(self, located: Located) -> Commit:
        """The working tree as it lies there, untracked files that git does not ignore included, marked dirty.

        A clean one is the commit of HEAD, not dirty. Raises SourceError where the source has no working tree.
        """
        if located.checkout is None:
            raise SourceError(f"{located.location} has no working tree: leave --worktree out, or give a checkout")
        located = self.locate(str(located.checkout), uncommitted=False)  # HEAD may have moved since
        head = self.commit(located, None)
        repository = find_repository(self._git, Path(located.location))
        filters = self._git.settings(read_settings(self._git, repository.folder).harmless())
        sha = git_checkouts.snapshot(self._git, repository, located.mirror, head, filters)
        return head if sha is None else replace(head, sha=sha, dirty=True)

    # --- what moved --------------------------------------------------------------------------------------------------

    def glance(self, location: str) -> str:
        """A name for where the branches of a location stand, told without bringing it near. Raises SourceError."""
        return git_branches.glance(self._git, self._address(location), self._folder)

    def branches(self, located: Located) -> dict[str, str]:
        """The location's own branches, each with the commit at its tip."""
        return git_branches.branches(self._git, located.mirror, f"{space(located.location)}/heads")

    def default_branch(self, located: Located) -> str | None:
        """The location's default branch, or None where it does not say."""
        return self._default_branch(located)

    def first_parents(self, located: Located, shas: Collection[str]) -> dict[str, str]:
        """The first parent of each of these commits that has one."""
        return git_branches.first_parents(self._git, located.mirror, shas)

    def since(self, located: Located, tip: str, known: Collection[str]) -> tuple[str, ...]:
        """The commits that led to a tip and to none of the known ones, oldest first (`git_branches.since`)."""
        return git_branches.since(self._git, located.mirror, tip, known)

    def on(self, located: Located, branches: Collection[str], shas: Collection[str]) -> frozenset[str]:
        """Those of the commits that are on one of the branches, as both were last seen."""
        if not branches:
            return frozenset()
        mine = space(located.location)
        names = [f"{mine}/{kind}/{branch}" for kind in ("heads", "remotes") for branch in branches]
        form = "--format=%(objectname) %(refname)"
        rows = (line.partition(" ") for line in self._in(located.mirror, "for-each-ref", form, *names))
        tips = {sha for sha, _, name in rows if name in names}
        return git_branches.among(self._git, located.mirror, tips, shas)

    def tagged(self, located: Located, version: str) -> frozenset[str]:
        """The commits that a version tag of the location names so: at most one."""
        tags = version_tags(self._tags(located.mirror, f"{space(located.location)}/tags/"))
        wanted = {tag.version for tag in version_tags([(version, "")])} | {version}
        return frozenset(tag.sha for tag in tags if tag.version in wanted)

    # --- what a commit holds -----------------------------------------------------------------------------------------

    def version(self, located: Located, commit: Commit) -> str:
        """The commit's PEP 440 version by the location's tags (`commits.next_version`); the caller freezes it."""
        place = f"{space(located.location)}/tags/"
        tags = version_tags(self._tags(located.mirror, place))
        own = [tag.version for tag in tags if tag.sha == commit.sha]
        if own:
            return own[-1]
        reached = {sha for _, sha in self._tags(located.mirror, place, "--merged", commit.sha)} if tags else set()
        best = next((tag for tag in reversed(tags) if tag.sha in reached), None)
        beyond = [] if best is None else [f"^{best.sha}"]
        (distance,) = self._in(located.mirror, "rev-list", "--count", commit.sha, *beyond, "--")
        (short,) = self._in(located.mirror, "rev-parse", "--short=7", commit.sha)
        return next_version(best.version if best else None, int(distance), short, dirty=commit.dirty)

    def _tags(self, mirror: Path, place: str, *options: str) -> list[tuple[str, str]]:
        """The tags that name a commit, as (name, commit)."""
        form = "--format=%(refname) %(objecttype) %(objectname) %(*objecttype) %(*objectname)"
        found = []
        for line in self._in(mirror, "for-each-ref", form, *options, place):
            name, *halves = line.split(" ")
            kinds = dict(zip(halves[::2], halves[1::2], strict=True))
            if "commit" in kinds:
                found.append((name.removeprefix(place), kinds["commit"]))
        return found

    def change(self, located: Located, commit: Commit) -> Change:
        """The paths that a commit touches against its first parent (all of a root's), both names of a renamed one."""
        asked = ("diff-tree", "-r", "-z", "--name-only", "--no-commit-id", "--no-renames")
        parent = self._peel(located, commit.sha, "^1")
        between = ("--root", commit.sha) if parent is None else (parent, commit.sha)
        out = self._git.run("--git-dir=.", *asked, *between, "--", folder=located.mirror).out
        return Change(tuple(sorted(path.decode("utf-8", "backslashreplace") for path in out.split(b"\0") if path)))

    def changed_lines(
        self, located: Located, commit: Commit, wanted: Callable[[str], bool]
    ) -> dict[str, tuple[range, ...]]:
        """The lines of each wanted path that a commit, or the branch that it ends, adds (`git_changes.base_of`)."""
        mine, default = space(located.location), commit.default_branch
        places = [f"{mine}/heads/{default}", f"{mine}/remotes/{default}"] if default is not None else []
        tips = [full for full in self._refs(located, *places) if full in places] if places else []
        base = git_changes.base_of(self._git, located.mirror, commit.sha, tips)
        return git_changes.changed_lines(self._git, located.mirror, commit.sha, base, wanted)

    def files(self, mirror: Path, sha: str) -> GitCommitFiles:
        """The files of a commit; close it, or let it go. Raises SourceError for names that no workspace can hold."""
        return commit_files(self._git, mirror, sha, self._known)

    def read(self, mirror: Path, sha: str, path: str, limit: int = READ_LIMIT) -> bytes | None:
        """The first `limit` bytes of one file of a commit, or None where the commit has no such file."""
        return blob(self._git, mirror, sha, path, limit)

    def discard(self, keep: Collection[Path], before: float) -> int:
        """Remove the mirrors outside `keep` that nobody brought near since `before` (`Mirrors.discard`)."""
        return self._mirrors.discard(keep, before)


def _origin(repository: Repository, settings: Settings) -> Address | None:
    """Where a repository was cloned from; None where that is nowhere, or nothing that is read from here."""
    if settings.origin is None:
        return None
    try:
        address = parse_address(rewritten(settings.origin, settings.rules))
    except SourceError:
        return None  # the folder itself can be read all the same: it is then its own project
    if address.reach is not Reach.FOLDER:
        return address
    return folder_address(str((repository.folder / address.url).resolve()))
