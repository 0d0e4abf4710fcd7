"""What moved in a repository: the tips of its branches, and the commits that came since."""

from collections.abc import Collection
from pathlib import Path

from penstock.artifacts import digest_of
from penstock.commits import Address, Reach
from penstock.sources.git_commands import Answer, Git


def glance(git: Git, address: Address, folder: Path) -> str:
    """A name for where the branches of an address stand, by one command; `folder` is one that git may stand in.

    Raises SourceError where the address cannot be read.
    """
    if address.reach is Reach.FOLDER:
        asked = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads")
        lines = git.run(*asked, folder=Path(address.url)).lines()
    else:
        lines = git.reach(address, "ls-remote", "--heads", "--", address.url, folder=folder).lines()
    return str(digest_of("branches", sorted(lines)))


def branches(git: Git, mirror: Path, place: str) -> dict[str, str]:
    """The branches below a place of the mirror, each with the commit at its tip."""
    form = "--format=%(objectname) %(refname)"
    lines = git.run("--git-dir=.", "for-each-ref", form, f"{place}/", folder=mirror).lines()
    rows = (line.partition(" ") for line in lines)
    return {name.removeprefix(f"{place}/"): sha for sha, _, name in rows}


def first_parents(git: Git, mirror: Path, shas: Collection[str]) -> dict[str, str]:
    """The first parent of each commit that has one."""
    asked = ("rev-list", "--no-walk=unsorted", "--parents", "--stdin")
    text = "".join(f"{sha}\n" for sha in shas).encode()
    rows = (line.split(" ") for line in git.run("--git-dir=.", *asked, folder=mirror, text=text).lines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def since(git: Git, mirror: Path, tip: str, known: Collection[str]) -> tuple[str, ...]:
    """The commits that led to a tip and to none of the known ones, oldest first, along first parents.

    Known commits that the mirror does not have (any more) count for nothing; where it has none of them it cannot
    tell what is new, and the tip alone is given.
    """
    answer = _listed(git, mirror, tip, known) if known else None
    if answer is None or answer.code:
        there = _there(git, mirror, known)
        answer = _listed(git, mirror, tip, there) if there else None
    return (tip,) if answer is None else tuple(answer.lines())


def among(git: Git, mirror: Path, tips: Collection[str], shas: Collection[str]) -> frozenset[str]:
    """Those of the commits that one of the tips descends from, or is; none that the mirror does not have (any more)."""
    there = frozenset(_there(git, mirror, shas)) if tips and shas else frozenset()
    if not there:
        return there
    text = "".join((*(f"{sha}\n" for sha in sorted(there)), *(f"^{tip}\n" for tip in tips)))
    outside = git.run("--git-dir=.", "rev-list", "--stdin", folder=mirror, text=text.encode()).lines()
    return there.difference(outside)


def _listed(git: Git, mirror: Path, tip: str, known: Collection[str]) -> Answer:
    """The list itself; its exit code tells where one of the names is none of the mirror's."""
    text = "".join((f"{tip}\n", *(f"^{sha}\n" for sha in known)))
    asked = ("rev-list", "--first-parent", "--reverse", "--stdin")
    return git.run("--git-dir=.", *asked, folder=mirror, text=text.encode(), codes=None)


def _there(git: Git, mirror: Path, shas: Collection[str]) -> list[str]:
    asked = ("cat-file", "--batch-check=%(objectname) %(objecttype)")
    text = "".join(f"{sha}\n" for sha in sorted(shas)).encode()
    rows = (line.split(" ") for line in git.run("--git-dir=.", *asked, folder=mirror, text=text).lines())
    return [row[0] for row in rows if row[1:] == ["commit"]]
