"""The files of a commit."""

import gc
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from penstock.artifacts import Digest, File, Link, digest_of_bytes
from penstock.errors import EngineError, SourceError
from penstock.sources.git import GitSource, MemoryBlobDigests, lfs_pointers
from sources.repositories import Repo, new_repo


def test_the_files_of_a_commit(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """Executables, links, odd names, one blob as file and as link; submodules are absent."""
    inner = new_repo(tmp_path / "inner", repo.environment)
    inner.commit(z="1")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.folder.as_uri(), "sub")
    repo.write(**{"target": "a", "new\nline": "x", 'tab\t"é': "y", "deep/er/file": "", "big": "z" * (3 << 20)})
    repo.put("tool", "#!/bin/sh").chmod(0o755)
    (repo.folder / "link").symlink_to("a")
    sha = repo.commit()
    located = source.locate(str(repo.folder))
    for _ in ("read", "known"):
        with source.files(located.mirror, sha) as files:
            names = [".gitmodules", "a", "big", "deep/er/file", "link", "new\nline", 'tab\t"é', "target", "tool"]
            assert list(files.tree) == names
            assert files.tree.entries["link"] == Link("a")
            assert files.tree.entries["tool"] == File(digest_of_bytes(b"#!/bin/sh"), 9, executable=True)
            assert files.tree.entries["big"] == File(digest_of_bytes(b"z" * (3 << 20)), 3 << 20)
            for path, entry in files.tree.entries.items():
                if isinstance(entry, File):
                    assert files.read(entry.digest) == (repo.folder / path).read_bytes()
            with pytest.raises(KeyError):
                files.read(Digest(blake3(b"else").hexdigest()))


def test_only_unknown_blobs_are_read(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """What is known by its object name is not read again, even where the object is gone."""
    known = MemoryBlobDigests()
    sha = repo.commit(b="2")
    source = GitSource(tmp_path / "m", repo.environment, known)
    located = source.locate(str(repo.folder))
    tree = source.files(located.mirror, sha).tree
    blob = repo.git("rev-parse", "HEAD:b")
    for file in (located.mirror / "objects").rglob("*"):
        if file.is_file() and file.name == blob[2:]:
            file.unlink()
    assert source.files(located.mirror, sha).tree == tree
    with pytest.raises(EngineError, match="delete that folder"):
        GitSource(tmp_path / "m", repo.environment, MemoryBlobDigests()).files(located.mirror, sha)
    with (
        source.files(located.mirror, sha) as files,
        pytest.raises(EngineError, match="delete that folder"),
    ):
        files.read(digest_of_bytes(b"2"))


def test_files_that_nobody_closes_leave_no_process(source: GitSource, repo: Repo) -> None:
    """A CommitFiles that is let go ends its process, without a warning."""
    located = source.locate(str(repo.folder))
    files = source.files(located.mirror, source.commit(located, None).sha)
    assert files.read(digest_of_bytes(b"1")) == b"1"
    process = files._process
    assert process is not None
    del files
    gc.collect()
    assert process.poll() is not None


def test_files_after_close_are_read_again(source: GitSource, repo: Repo) -> None:
    """Closing twice is nothing, and a read after it starts anew."""
    located = source.locate(str(repo.folder))
    files = source.files(located.mirror, source.commit(located, None).sha)
    files.close()
    files.read(digest_of_bytes(b"1"))
    files.close()
    files.close()
    assert files.read(digest_of_bytes(b"1")) == b"1"
    files.close()


def test_several_threads_may_read(source: GitSource, repo: Repo) -> None:
    """Reads of several threads never mix."""
    for number in range(200):
        repo.put(f"f{number}", f"content {number}")
    sha = repo.commit()
    located = source.locate(str(repo.folder))
    wrong: list[str] = []
    with source.files(located.mirror, sha) as files:

        def read_all() -> None:
            wrong.extend(d for d in files.tree.digests() if digest_of_bytes(files.read(d)) != d)

        threads = [threading.Thread(target=read_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_one_file(source: GitSource, repo: Repo) -> None:
    """A file, up to the limit; None for what is absent, a folder, a link, a submodule or no path at all."""
    repo.write(**{"deep/file": "content", "new\nline *?[": "odd"})
    (repo.folder / "link").symlink_to("a")
    sha = repo.commit()
    mirror = source.locate(str(repo.folder)).mirror
    assert source.read(mirror, sha, "deep/file") == b"content"
    assert source.read(mirror, sha, "deep/file", limit=4) == b"cont"
    assert source.read(mirror, sha, "new\nline *?[") == b"odd"
    for path in ("deep", "deep/", "link", "nothing", "", "/a", "./a", "deep/../a", "a\0", ":/a", "*"):
        assert source.read(mirror, sha, path) is None, path
    with pytest.raises(SourceError, match="is not in the mirror"):
        source.read(mirror, "0" * 40, "a")
    with pytest.raises(SourceError, match="is not in the mirror"):
        source.files(mirror, "0" * 40)


def test_git_lfs_pointers_are_told(source: GitSource, repo: Repo) -> None:
    """Only small files that begin as a pointer does are pointers, and only among the paths asked for."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"
    repo.write(**{"model.pt": pointer, "other.pt": pointer + "1", "large.txt": pointer + "x" * 2000, "b": "version"})
    (repo.folder / "link").symlink_to("model.pt")
    sha = repo.commit()
    with source.files(source.locate(str(repo.folder)).mirror, sha) as files:
        asked = ["model.pt", "large.txt", "b", "link", "absent", "model.pt"]
        assert lfs_pointers(files, asked) == ("model.pt",)
        assert lfs_pointers(files, files.tree) == ("model.pt", "other.pt")


def test_five_thousand_files_are_quick(
    source: GitSource, repo: Repo, record_property: Callable[[str, object], None]
) -> None:
    """Listing, hashing and reading 5,000 files takes a second or two on a busy machine, a known tree far less."""
    for number in range(5000):
        repo.put(f"d{number % 50}/f{number}", f"content {number}" * 20)
    sha = repo.commit()
    located = source.locate(str(repo.folder))
    started = time.perf_counter()
    with source.files(located.mirror, sha) as files:
        hashed = time.perf_counter()
        assert sum(len(files.read(d)) for d in files.tree.digests()) == files.tree.size
    read = time.perf_counter()
    source.files(located.mirror, sha)
    again = time.perf_counter()
    figures = {"hash": hashed - started, "read": read - hashed, "known": again - read}
    for name, seconds in figures.items():
        record_property(f"{name}_ms", round(seconds * 1000))
    assert sum(figures.values()) < 10


def test_nothing_is_left_open(source: GitSource, repo: Repo) -> None:
    """Locating, snapshots and reading leave no descriptor behind, and locks are closed on exec."""
    located = source.locate(str(repo.folder))
    before = len(list(Path("/proc/self/fd").iterdir()))
    repo.write(a="2")
    commit = source.snapshot(located)
    source.read(located.mirror, commit.sha, "a")
    source.files(located.mirror, commit.sha).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert stat.S_IMODE((located.mirror / "penstock-lock").stat().st_mode) == 0o600
