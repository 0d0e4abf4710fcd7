"""Working trees as commits."""

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from penstock.artifacts import File, Link
from penstock.sources.git import GitSource
from sources.repositories import Repo, new_repo


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and digest of each file below a folder; git sets the time of an object that is written once more."""
    return {
        str(f): (0 if "objects" in f.parts else f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest())
        for f in folder.rglob("*")
        if f.is_file()
    }


def test_a_snapshot_is_the_working_tree_and_touches_nothing(source: GitSource, repo: Repo) -> None:
    """Changed, new, staged, deleted and executable files are in it; index, objects and files stay bit for bit."""
    repo.commit(b="2", c="3", d="4", **{".gitignore": "*.log"})
    repo.write(a="changed", **{"noise.log": "x", "deep/new": "new", "é\n": "odd"})
    repo.put("run.sh", "#!/bin/sh").chmod(0o755)
    (repo.folder / "link").symlink_to("a")
    repo.put("staged", "staged")
    repo.git("add", "staged")
    repo.git("rm", "--quiet", "--cached", "d")
    (repo.folder / "b").unlink()
    located = source.locate(str(repo.folder))
    before = everything(repo.folder)
    commit = source.snapshot(located)
    assert everything(repo.folder) == before
    assert commit.dirty
    assert commit.branch == "main"
    with source.files(located.mirror, commit.sha) as files:
        tree = files.tree
        assert list(tree) == [".gitignore", "a", "c", "d", "deep/new", "link", "run.sh", "staged", "é\n"]
        assert tree.entries["link"] == Link("a")
        script = tree.entries["run.sh"]
        assert isinstance(script, File)
        assert script.executable
        assert source.read(located.mirror, commit.sha, "a") == b"changed"
    assert source.change(located, commit).paths == ("a", "b", "deep/new", "link", "run.sh", "staged", "é\n")
    assert source.version(located, commit) == f"0.0.0.dev3+g{commit.sha[:7]}.dirty"


def test_a_snapshot_stands_without_the_checkout(source: GitSource, repo: Repo) -> None:
    """All that a snapshot holds lies in the mirror: even what the person had staged."""
    repo.put("staged", "staged")
    repo.git("add", "staged")
    located = source.locate(str(repo.folder))
    commit = source.snapshot(located)
    assert source.snapshot(located).sha == commit.sha
    (repo.folder / ".git").rename(repo.folder / "gone")
    repo.put("a", "other")
    with source.files(located.mirror, commit.sha) as files:
        assert {files.read(d) for d in files.tree.digests()} == {b"1", b"staged"}
    check = subprocess.run(["git", "--git-dir=.", "fsck", "--strict"], cwd=located.mirror, env=repo.environment,
                           capture_output=True, check=False)  # fmt: skip
    assert check.returncode == 0, check.stderr


def test_a_clean_snapshot_is_head(source: GitSource, repo: Repo) -> None:
    """Nothing uncommitted, or only what no snapshot can hold: HEAD itself, not dirty."""
    located = source.locate(str(repo.folder))
    assert source.snapshot(located) == source.commit(located, None)
    new_repo(repo.folder / "inner", repo.environment).commit(z="1")
    assert source.snapshot(source.locate(str(repo.folder))) == source.commit(located, None)


def test_a_snapshot_after_head_moved(source: GitSource, repo: Repo) -> None:
    """A snapshot stands on the HEAD of its own moment, not on that of the locate before it."""
    located = source.locate(str(repo.folder))
    tip = repo.commit("moved", a="2")
    repo.write(a="3")
    commit = source.snapshot(located)
    assert source.commit(located, f"{commit.sha}~1").sha == tip


def test_a_persons_own_filters_apply_to_a_snapshot(source: GitSource, repo: Repo) -> None:
    """What their settings clean (as Git LFS does) is cleaned; the repository's own config names no command."""
    config = Path(repo.environment["GIT_CONFIG_GLOBAL"])
    config.write_text(config.read_text() + '\n[filter "loud"]\n    clean = tr a-z A-Z\n')
    repo.commit(**{".gitattributes": "*.txt filter=loud\n"})
    repo.git("config", "filter.loud.clean", "touch pwned; cat")
    repo.write(**{"x.txt": "words"})
    located = source.locate(str(repo.folder))
    assert source.read(located.mirror, source.snapshot(located).sha, "x.txt") == b"WORDS"


def test_a_snapshot_of_a_worktree(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A worktree has an index of its own, which is the one that counts."""
    repo.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    side = Repo(tmp_path / "side", repo.environment)
    side.write(b="2")
    repo.write(c="3")
    commit = source.snapshot(source.locate(str(side.folder)))
    located = source.locate(str(side.folder))
    assert list(source.files(located.mirror, commit.sha).tree) == ["a", "b"]


def stale(repo: Repo, index: Path | None = None) -> list[str]:
    """The files that git would have to read, because an index knows another size or time of them."""
    chosen = {} if index is None else {"GIT_INDEX_FILE": str(index)}
    return replace(repo, environment=repo.environment | chosen).git("diff-files", "--name-only").splitlines()


def test_files_that_only_look_changed_are_read_once(source: GitSource, repo: Repo) -> None:
    """What a look at the files found is kept beside the mirror, and the person's own index stays as it is."""
    names = [f"f{number}" for number in range(20)]
    repo.commit(**dict.fromkeys(names, "the same"))
    located = source.locate(str(repo.folder))
    for name in names:
        os.utime(repo.folder / name, (1, 1))
    assert stale(repo) == sorted(names)
    assert source.snapshot(located).dirty is False
    (kept,) = (path for path in (located.mirror / "penstock-indexes").iterdir() if path.suffix == "")
    assert stale(repo, kept) == []
    assert stale(repo) == sorted(names)
    assert source.snapshot(located).dirty is False
    assert stale(repo, kept) == []


def test_a_kept_index_never_hides_what_changed(source: GitSource, repo: Repo) -> None:
    """Each snapshot shows the files as they lie: changed, staged, new, newly ignored, removed and committed ones."""
    located = source.locate(str(repo.folder))

    def shown() -> dict[str, bytes]:
        commit = source.snapshot(located)
        with source.files(located.mirror, commit.sha) as files:
            return {path: files.read(e.digest) for path, e in files.tree.entries.items() if isinstance(e, File)}

    assert shown() == {"a": b"1"}
    repo.write(a="2", new="n")
    assert shown() == {"a": b"2", "new": b"n"}
    repo.put(".gitignore", "new\n")
    assert shown() == {".gitignore": b"new\n", "a": b"2"}
    repo.put(".gitignore", "")
    repo.git("add", "-A")
    repo.write(a="3")
    assert shown() == {".gitignore": b"", "a": b"3", "new": b"n"}
    (repo.folder / "new").unlink()
    assert shown() == {".gitignore": b"", "a": b"3"}
    repo.commit("all of it")
    assert source.snapshot(located).dirty is False
    assert shown() == {".gitignore": b"", "a": b"3"}
    (repo.folder / ".git/index").unlink()
    assert shown() == {".gitignore": b"", "a": b"3"}
