"""What commits are called, their versions and changes."""

import hashlib
from pathlib import Path

import pytest

from penstock.errors import SourceError
from penstock.sources.git import GitSource, MemoryBlobDigests
from sources.repositories import Repo


def test_what_a_commit_tells(source: GitSource, repo: Repo) -> None:
    """Author, first line, time and branches; control characters are gone."""
    sha = repo.commit("a \x1b[1mtitle\n\nand more")
    repo.git("branch", "release/1")
    commit = source.commit(source.locate(str(repo.folder)), None)
    assert commit.sha == sha
    assert (commit.author, commit.title) == ("Ada <ada@example.org>", "a [1mtitle")
    assert commit.committed_at == "2026-01-02T03:04:05+01:00"
    assert (commit.branch, commit.branches, commit.default_branch) == ("main", ("main", "release/1"), "main")
    assert not commit.dirty


def test_all_ways_to_name_a_commit(source: GitSource, repo: Repo) -> None:
    """Branches, tags of both kinds, full and short names, steps back and full references."""
    first = repo.git("rev-parse", "HEAD")
    repo.git("tag", "light")
    repo.git("tag", "-a", "-m", "x", "heavy")
    tip = repo.commit("second", a="2")
    repo.git("branch", "feature/x")
    located = source.locate(str(repo.folder))
    for name in ("light", "heavy", "refs/tags/heavy", first, first[:4], first[:10].upper(), "HEAD~1", "main^", "@~"):
        commit = source.commit(located, name)
        assert (commit.sha, commit.branch) == (first, None), name
    for name, branch in (("main", "main"), ("refs/heads/main", "main"), ("feature/x", "feature/x"), ("HEAD", "main")):
        assert source.commit(located, name).branch == branch, name
        assert source.commit(located, name).sha == tip


def test_a_detached_head_has_no_branch(source: GitSource, repo: Repo) -> None:
    """A detached HEAD is a commit like any other; where no branch holds it, none does."""
    repo.git("switch", "--quiet", "--detach")
    sha = repo.commit("off", a="2")
    commit = source.commit(source.locate(str(repo.folder)), None)
    assert (commit.sha, commit.branch, commit.branches, commit.default_branch) == (sha, None, (), "main")


def test_branches_that_only_the_origin_has(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A detached checkout, as CI services make, still knows the origin's branches and its default."""
    repo.git("branch", "topic")
    repo.git("branch", "-m", "main", "trunk")
    clone = repo.clone(tmp_path / "clone")
    clone.git("switch", "--quiet", "--detach")
    clone.git("branch", "-D", "trunk")
    located = source.locate(str(clone.folder))
    commit = source.commit(located, None)
    assert (commit.branch, commit.branches, commit.default_branch) == (None, ("topic", "trunk"), "trunk")
    assert source.commit(located, "topic").branch == "topic"
    assert source.commit(located, "origin/topic").branch == "topic"


def test_the_default_branch_without_a_remotes_choice(source: GitSource, repo: Repo) -> None:
    """main, else master, else the only one; two others: none."""
    repo.git("branch", "-m", "main", "only")
    assert source.commit(source.locate(str(repo.folder)), None).default_branch == "only"
    repo.git("branch", "other")
    assert source.commit(source.locate(str(repo.folder)), None).default_branch is None
    repo.git("branch", "master")
    assert source.commit(source.locate(str(repo.folder)), None).default_branch == "master"


def test_a_remote_without_a_head(repo: Repo, tmp_path: Path, over_ssh: dict[str, str]) -> None:
    """A remote whose HEAD leads nowhere is read at its default branch, or asks for one."""
    bare = repo.clone(tmp_path / "bare.git", "--bare")
    bare.git("symbolic-ref", "HEAD", "refs/heads/gone")
    source = GitSource(tmp_path / "mirrors", over_ssh, MemoryBlobDigests())
    url = f"git@example.org:{bare.folder}"
    assert source.commit(source.locate(url), None).branch == "main"
    bare.git("branch", "-m", "main", "one")
    bare.git("branch", "two", "one")
    with pytest.raises(SourceError, match="no HEAD and no default branch"):
        source.commit(source.locate(url), None)


def test_a_name_that_is_missing_gets_a_hint(source: GitSource, repo: Repo) -> None:
    """A slip is answered with the nearest name there is."""
    repo.git("branch", "release/1.0")
    located = source.locate(str(repo.folder))
    with pytest.raises(SourceError, match=r'named "relaese/1.0" in .*project; nearest: "release/1.0"'):
        source.commit(located, "relaese/1.0")
    with pytest.raises(SourceError, match=r'named "zzz" in .*project$'):
        source.commit(located, "zzz")
    with pytest.raises(SourceError, match='named "main~9"'):
        source.commit(located, "main~9")


def test_a_short_name_of_two_commits_is_refused(source: GitSource, repo: Repo) -> None:
    """The beginning of more than one commit's name asks for more of it."""
    tree = repo.git("rev-parse", "HEAD^{tree}")
    seen: dict[str, str] = {}
    for number in range(5000):
        body = f"tree {tree}\nauthor A <a@b> {number} +0000\ncommitter A <a@b> {number} +0000\n\nx\n".encode()
        sha = hashlib.sha1(b"commit %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        if sha[:4] in seen:
            break
        seen[sha[:4]] = body.decode()
    for text in (seen[sha[:4]].encode(), body):
        made = repo.git("hash-object", "-t", "commit", "-w", "--stdin", text=text)
        repo.git("branch", f"b{made}", made)
    with pytest.raises(SourceError, match="more than one commit's name: give more"):
        source.commit(source.locate(str(repo.folder)), sha[:4])


def test_a_name_of_two_things_is_refused(source: GitSource, repo: Repo) -> None:
    """A branch and a tag of one name that differ must be told apart; where they agree either will do."""
    repo.git("tag", "twice")
    repo.git("branch", "twice")
    assert source.commit(source.locate(str(repo.folder)), "twice").title == "the beginning"
    tip = repo.commit("later", a="2")
    repo.git("branch", "-f", "twice")
    located = source.locate(str(repo.folder))
    with pytest.raises(SourceError, match="is a branch and a tag"):
        source.commit(located, "twice")
    assert source.commit(located, "refs/heads/twice").sha == tip
    assert source.commit(located, "refs/tags/twice").sha != tip


def version_of(source: GitSource, repo: Repo, ref: str | None = None) -> str:
    located = source.locate(str(repo.folder))
    return source.version(located, source.commit(located, ref))


def test_versions_by_tags(source: GitSource, repo: Repo) -> None:
    """On a tag its version, after it development versions of the next one; tags that are no versions do not count."""
    assert version_of(source, repo).startswith("0.0.0.dev1+g")
    repo.git("tag", "-a", "-m", "x", "v1.3.0")
    repo.git("tag", "nightly")
    assert version_of(source, repo) == "1.3.0"
    sha = ""
    for number in range(12):
        sha = repo.commit(a=str(number))
    repo.git("tag", "nightly-2")
    assert version_of(source, repo) == f"1.3.1.dev12+g{sha[:7]}"
    repo.git("tag", "v1.4.0-rc1")
    assert version_of(source, repo) == "1.4.0rc1"
    sha = repo.commit(a="x")
    assert version_of(source, repo) == f"1.4.0rc2.dev1+g{sha[:7]}"
    assert version_of(source, repo, "v1.3.0") == "1.3.0"


def test_versions_count_merged_commits_and_never_fall(source: GitSource, repo: Repo) -> None:
    """After a merge the highest version below counts, whichever side it came from; commits of both sides count."""
    repo.git("tag", "v1.0")
    repo.git("switch", "--quiet", "-c", "fix")
    repo.commit("fix", b="2")
    repo.git("tag", "v1.0.1")
    repo.git("switch", "--quiet", "main")
    repo.commit("one", c="3")
    repo.git("tag", "v2.0")
    repo.commit("two", c="4")
    repo.git("merge", "--quiet", "--no-edit", "fix")
    sha = repo.git("rev-parse", "HEAD")
    assert version_of(source, repo) == f"2.1.dev3+g{sha[:7]}"


def test_a_version_that_two_commits_claim_names_neither(source: GitSource, repo: Repo) -> None:
    """`v1.0` here and `1.0` there would give two commits one version, so that both are passed over."""
    repo.git("tag", "v1.0")
    sha = repo.commit(a="2")
    repo.git("tag", "1.0")
    assert version_of(source, repo) == f"0.0.0.dev2+g{sha[:7]}"


def test_tags_of_files_do_not_count(source: GitSource, repo: Repo) -> None:
    """A version tag on a blob is no version of a commit."""
    repo.git("tag", "v9.0", "HEAD:a")
    assert version_of(source, repo).startswith("0.0.0.dev1+g")


def test_changes(source: GitSource, repo: Repo) -> None:
    """A root touches all, a rename both names, a merge what it brings to its first parent."""
    located = source.locate(str(repo.folder))
    assert source.change(located, source.commit(located, None)).paths == ("a",)
    repo.git("mv", "a", "é \n")
    repo.commit("rename")
    repo.git("switch", "--quiet", "-c", "side", "HEAD~1")
    repo.commit(side="1")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-edit", "side")
    located = source.locate(str(repo.folder))
    assert source.change(located, source.commit(located, None)).paths == ("side",)
    assert source.change(located, source.commit(located, "HEAD~1")).paths == ("a", "é \n")


# --- which commits are on which branches ---------------------------------------------------------------------------


def test_which_commits_are_on_a_branch(source: GitSource, repo: Repo) -> None:
    """Those that its tip descends from, and the tip itself; on none of a branch that is not there."""
    first = repo.git("rev-parse", "HEAD")
    repo.git("switch", "--quiet", "-c", "topic/x")
    aside = repo.commit("aside", a="2")
    repo.git("switch", "--quiet", "main")
    tip = repo.commit("on main", a="3")
    located, every = source.locate(str(repo.folder)), (first, aside, tip, "f" * 40)
    assert source.on(located, ["main"], every) == {first, tip}
    assert source.on(located, ["topic/x"], every) == {first, aside}
    assert source.on(located, ["topic/x", "main"], every) == {first, aside, tip}
    assert source.on(located, ["topic", "mai"], every) == source.on(located, [], every) == frozenset()
    assert source.on(located, ["main"], ["f" * 40]) == source.on(located, ["main"], []) == frozenset()


def test_a_branch_may_move_away_from_a_commit(source: GitSource, repo: Repo) -> None:
    """What a branch was reset away from is not on it any more; what was merged into it is."""
    repo.git("switch", "--quiet", "-c", "topic")
    aside = repo.commit("aside", a="2")
    repo.git("switch", "--quiet", "main")
    tip = repo.commit("a mistake", b="3")
    assert source.on(source.locate(str(repo.folder)), ["main"], [aside, tip]) == {tip}
    repo.git("reset", "--quiet", "--hard", "topic")
    assert source.on(source.locate(str(repo.folder)), ["main"], [aside, tip]) == {aside}


def test_branches_of_the_origin_count_too(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A checkout without a branch of its own knows what is on the origin's."""
    sha = repo.git("rev-parse", "HEAD")
    clone = repo.clone(tmp_path / "clone")
    clone.git("switch", "--quiet", "--detach")
    clone.git("branch", "-D", "main")
    assert source.on(source.locate(str(clone.folder)), ["main"], [sha]) == {sha}


def test_a_tag_names_a_commit_as_a_version(source: GitSource, repo: Repo) -> None:
    """In either spelling; a version that no tag has names nothing."""
    sha = repo.git("rev-parse", "HEAD")
    repo.git("tag", "v1.4.0")
    repo.commit("later", a="2")
    located = source.locate(str(repo.folder))
    assert source.tagged(located, "1.4.0") == source.tagged(located, "v1.4.0") == {sha}
    assert source.tagged(located, "1.4.1") == source.tagged(located, "nonsense") == frozenset()
