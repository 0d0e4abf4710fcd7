"""What a change is: the lines that a commit, or the branch that it ends, adds to the default branch."""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from penstock.sources.git_commands import Git

_AT_ONCE = 500
_DIFF = (
    *("diff-tree", "-r", "--no-commit-id", "--no-ext-diff", "--no-textconv", "--no-color", "--find-renames"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def base_of(git: Git, mirror: Path, sha: str, defaults: Sequence[str]) -> str | None:
    """What a commit is compared with: where its history left that of the default branch, else its first parent.

    `defaults` are tips of the default branch, as the repository and its origin have it. A commit that is on the default
    branch left it nowhere. None means that everything is new: a root, or a history of its own.
    """
    if defaults:
        answer = git.run("--git-dir=.", "merge-base", sha, *defaults, folder=mirror, codes=(0, 1))
        left = answer.lines()[:1]
        if left != [sha]:
            return left[0] if left else None
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{sha}^1")
    answer = git.run("--git-dir=.", *asked, folder=mirror, codes=(0, 1))
    return answer.lines()[0] if answer.code == 0 else None


def changed_lines(
    git: Git, mirror: Path, sha: str, base: str | None, wanted: Callable[[str], bool]
) -> dict[str, tuple[range, ...]]:
    """The lines of each wanted path that are not as they are in the base, by their numbers, which begin with 1.

    Of a file that was moved only the lines that differ; deleted lines are nowhere. A path whose content is no text, or
    of which only lines were taken away, has none.
    """
    between = (_nothing(git, mirror) if base is None else base, sha)
    names = git.run("--git-dir=.", *_DIFF, "--no-renames", "--name-only", "-z", *between, "--", folder=mirror).out
    paths = [name for name in names.split(b"\0") if name and wanted(name.decode("utf-8", "backslashreplace"))]
    found: dict[str, tuple[range, ...]] = {}
    for start in range(0, len(paths), _AT_ONCE):
        asked = ("--literal-pathspecs", "--git-dir=.", *_DIFF, "--unified=0", "-p", *between, "--")
        part = (path.decode("utf-8", "surrogateescape") for path in paths[start : start + _AT_ONCE])
        found.update(_read(git.run(*asked, *part, folder=mirror).out))
    return {path: lines for path, lines in found.items() if wanted(path)}


def _nothing(git: Git, mirror: Path) -> str:
    """The tree without files, which every repository has under the name that its kind of hash gives."""
    return git.run("--git-dir=.", "hash-object", "-t", "tree", "--stdin", folder=mirror).lines()[0]


def _read(diff: bytes) -> Iterator[tuple[str, tuple[range, ...]]]:
    """The new lines of each file of a diff without context."""
    path: str | None = None
    ranges: list[range] = []
    lines = iter(diff.split(b"\n"))
    for line in lines:
        if line.startswith(b"diff --git "):
            if path is not None:
                yield path, tuple(ranges)
            path, ranges = None, []
        elif line.startswith(b"+++ "):
            path = _named(line[4:])
        elif (hunk := _HUNK.match(line)) is not None:
            old, start, new = (int(group or b"1") for group in (hunk[1], hunk[2], hunk[3]))
            _pass_over(lines, old + new)
            if new:
                ranges.append(range(start, start + new))
    if path is not None:
        yield path, tuple(ranges)


def _pass_over(lines: Iterator[bytes], count: int) -> None:
    """Leave out the text of a hunk, which may look like anything; what says that a last line has no end is no line."""
    while count:
        count -= not next(lines).startswith(b"\\")


def _named(text: bytes) -> str | None:
    """The path of a file's headline; None where the file is gone."""
    text = text.removesuffix(b"\t")
    if text == b"/dev/null":
        return None
    if text.startswith(b'"'):
        text = codecs.escape_decode(text[1:-1])[0]
    return text.removeprefix(b"b/").decode("utf-8", "backslashreplace")
