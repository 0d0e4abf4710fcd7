"""The lines that a commit, or the branch that it ends, adds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.sources.git import GitSource
from penstock.sources.git_changes import _read
from sources.repositories import Repo, isolated, new_repo


def numbered(*lines: int | str) -> str:
    return "".join(f"line {line}\n" for line in lines)


def changed(
    source: GitSource, repo: Repo, ref: str | None = None, wanted: Callable[[str], bool] = lambda _path: True
) -> dict[str, list[int]]:
    located = source.locate(str(repo.folder))
    found = source.changed_lines(located, source.commit(located, ref), wanted)
    return {path: [line for part in ranges for line in part] for path, ranges in found.items()}


def test_a_root_is_new_from_end_to_end(source: GitSource, repo: Repo) -> None:
    """There is nothing before it."""
    repo.put("b/c.py", numbered(1, 2, 3))
    repo.git("add", "-A")
    repo.git("commit", "--quiet", "--amend", "-m", "all of it")
    assert changed(source, repo) == {"a": [1], "b/c.py": [1, 2, 3]}


def test_on_the_default_branch_a_commit_is_compared_with_its_first_parent(source: GitSource, repo: Repo) -> None:
    """Lines that were altered or added, of each file; taken away lines are nowhere."""
    repo.put("gone.py", "x\n")
    repo.put("less.py", numbered(1, 2, 3))
    repo.commit(**{"m.py": numbered(*range(1, 11))})
    (repo.folder / "gone.py").unlink()
    repo.put("less.py", numbered(1, 3))
    repo.put("m.py", numbered(1, "two", 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    repo.commit()
    assert changed(source, repo) == {"m.py": [2, 11, 12], "less.py": []}


def test_a_branch_is_compared_with_where_it_left_the_default_branch(source: GitSource, repo: Repo) -> None:
    """All of its commits count, and nothing that the default branch did since."""
    repo.commit(**{"m.py": numbered(*range(1, 6))})
    repo.git("switch", "--quiet", "-c", "feature")
    repo.commit(**{"m.py": numbered("one", 2, 3, 4, 5)})
    repo.commit(**{"m.py": numbered("one", 2, 3, 4, 5, 6), "n.py": "x\n"})
    repo.git("switch", "--quiet", "main")
    repo.commit(**{"o.py": "y\n"})
    assert changed(source, repo, "feature") == {"m.py": [1, 6], "n.py": [1]}
    repo.git("merge", "--quiet", "--no-ff", "-m", "merged", "feature")
    assert changed(source, repo) == {"m.py": [1, 6], "n.py": [1]}
    assert changed(source, repo, "feature") == {"m.py": [6], "n.py": [1]}, "it is on the default branch now"


def test_the_nearer_of_two_default_branches_counts(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A clone whose own `main` is old knows the origin's."""
    clone = Repo(tmp_path / "clone", repo.environment)
    repo.git("clone", "--quiet", str(repo.folder), str(clone.folder))
    repo.commit(**{"theirs.py": "x\n"})
    clone.git("fetch", "--quiet")
    clone.git("switch", "--quiet", "-c", "feature", "origin/main")
    clone.commit(**{"mine.py": "y\n"})
    assert changed(source, clone) == {"mine.py": [1]}


def test_a_history_apart_and_a_repository_without_a_default_branch(source: GitSource, repo: Repo) -> None:
    """What shares nothing with the default branch is all new; where there is none, the first parent counts."""
    repo.git("switch", "--quiet", "--orphan", "apart")
    repo.commit(**{"p.py": "1\n"})
    repo.commit(**{"q.py": "2\n"})
    assert changed(source, repo) == {"p.py": [1], "q.py": [1]}
    located = source.locate(str(repo.folder))
    commit = replace(source.commit(located, None), default_branch=None)
    assert list(source.changed_lines(located, commit, lambda _path: True)) == ["q.py"]


def test_a_working_tree_is_compared_as_if_it_were_committed(source: GitSource, repo: Repo) -> None:
    """On the default branch with what is committed there."""
    repo.write(a="1", new="2\n3\n")
    located = source.locate(str(repo.folder))
    assert source.changed_lines(located, source.snapshot(located), lambda _path: True) == {"new": (range(1, 3),)}


def test_names_and_contents_may_be_anything(source: GitSource, repo: Repo) -> None:
    """Moved files count where they differ; quotes, spaces and lines that look like a diff fool nobody."""
    repo.put("old name.py", numbered(*range(1, 30)))
    repo.put("plain", "x")
    repo.commit()
    repo.git("mv", "old name.py", "new name.py")
    repo.put("new name.py", numbered(*range(1, 29), "last"))
    repo.put('q"u\\o\tte.py', "--- a/x\n+++ b/x\n@@ -1 +1 @@\n")
    repo.put("ü.py", "+++ b/y\n")
    repo.put("plain", "y")
    repo.put("binary", b"\0\1\2")
    repo.commit()
    assert changed(source, repo) == {
        "new name.py": [29],
        'q"u\\o\tte.py': [1, 2, 3],
        "ü.py": [1],
        "plain": [1],
    }
    assert changed(source, repo, wanted=lambda path: path == "ü.py") == {"ü.py": [1]}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, GitSource]:
    from penstock.sources.git import MemoryBlobDigests  # noqa: PLC0415 - as the fixtures of single tests do

    folder = tmp_path_factory.mktemp("changes")
    environment = isolated(folder / "person")
    return new_repo(folder / "project", environment), GitSource(folder / "mirrors", environment, MemoryBlobDigests())


TEXT = st.lists(st.sampled_from(["a", "b", "+++ b/x", "-- c", "@@ -1 +1 @@", "\\ no", ""]), max_size=8)


@given(before=TEXT, after=TEXT, ends=st.booleans())
@settings(max_examples=15, deadline=None)
def test_unchanged_lines_are_the_old_ones(
    workshop: tuple[Repo, GitSource], before: list[str], after: list[str], *, ends: bool
) -> None:
    """What is left of the new text without the changed lines is a part of the old, in its order."""
    repo, _ = workshop
    one, two = ("\n".join(text) + ("\n" if ends and text else "") for text in (before, after))
    names = [repo.put(name, text) for name, text in (("one", one), ("two", two))]
    hashes = [repo.git("hash-object", "-w", str(name)) for name in names]
    diff = repo.git("diff", "--unified=0", "--src-prefix=a/", "--dst-prefix=b/", *hashes)
    found = dict(_read(diff.encode()))
    ranges = next(iter(found.values()), ())
    kept = [line for n, line in enumerate(two.split("\n"), 1) if not any(n in part for part in ranges)]
    rest = iter(one.split("\n"))
    assert all(line in rest for line in kept if line)
