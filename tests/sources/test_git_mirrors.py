"""Shallow clones, several processes at once, and kills."""

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.errors import SourceError
from penstock.sources.git import GitSource, MemoryBlobDigests
from sources.repositories import Repo


def test_a_shallow_clone_is_deepened_from_its_origin(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """Its version counts all commits, its own commits are there, and the clone itself stays as it was."""
    for number in range(4):
        repo.commit(a=str(number + 10))
    shallow = repo.clone(tmp_path / "shallow", "--depth=1")
    shallow.commit("own", own="1")
    located = source.locate(str(shallow.folder))
    commit = source.commit(located, None)
    assert source.version(located, commit) == f"0.0.0.dev6+g{commit.sha[:7]}"
    assert located.identity == str(repo.folder)
    assert (shallow.folder / ".git" / "shallow").exists()


def test_a_shallow_clone_is_deepened_over_the_network(repo: Repo, tmp_path: Path, over_ssh: dict[str, str]) -> None:
    """The same for an origin that is a clone URL."""
    repo.commit(a="2")
    shallow = repo.clone(tmp_path / "shallow", "--depth=1")
    shallow.git("remote", "set-url", "origin", f"git@example.org:{repo.folder}")
    source = GitSource(tmp_path / "mirrors", over_ssh, MemoryBlobDigests())
    located = source.locate(str(shallow.folder))
    assert source.version(located, source.commit(located, None)).startswith("0.0.0.dev2+g")


def test_a_shallow_clone_that_cannot_be_deepened_is_refused(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """Without its origin, or with one that is shallow itself, versions would lie."""
    repo.commit(a="2")
    shallow = repo.clone(tmp_path / "shallow", "--depth=1")
    shallow.git("remote", "set-url", "origin", str(tmp_path / "gone"))
    with pytest.raises(SourceError, match=r"run `git fetch --unshallow` in it"):
        source.locate(str(shallow.folder))
    shallow.git("remote", "set-url", "origin", str(shallow.folder))
    with pytest.raises(SourceError, match="shallow"):
        source.locate(str(shallow.folder))
    shallow.git("remote", "remove", "origin")
    with pytest.raises(SourceError, match="no origin to complete it from"):
        source.locate(str(shallow.folder))


def test_a_shallow_clone_with_history_that_its_origin_lost_is_refused(
    source: GitSource, repo: Repo, tmp_path: Path
) -> None:
    """Where the origin no longer has what the clone was cut from, the sentence says what to do."""
    repo.commit(a="2")
    repo.commit(a="3")
    shallow = repo.clone(tmp_path / "shallow", "--depth=1")
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    with pytest.raises(SourceError, match="shallow clone whose history could not be completed"):
        source.locate(str(shallow.folder))


_LOCATE = """
import os, sys
from pathlib import Path
from penstock.sources.git import GitSource, MemoryBlobDigests
source = GitSource(Path(sys.argv[1]), os.environ, MemoryBlobDigests())
located = source.locate(sys.argv[2])
print(source.commit(located, None).sha)
"""


def start_locate(mirrors: Path, location: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _LOCATE, str(mirrors), str(location)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_four_processes_at_once(repo: Repo, tmp_path: Path, environment: dict[str, str]) -> None:
    """Four first locates of one project at once all end well, and leave one mirror."""
    for number in range(20):
        repo.put(f"f{number}", str(number))
    tip = repo.commit()
    repo.clone(tmp_path / "clone")
    places = [repo.folder, tmp_path / "clone"] * 2
    processes = [start_locate(tmp_path / "mirrors", place, environment) for place in places]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [out.strip() for out, _ in answers] == [tip] * 4, answers
    assert [f.name for f in (tmp_path / "mirrors").iterdir() if f.suffix != ".lock" and f.name != ".lock"] == [
        source_mirror(tmp_path, environment, repo).name
    ]


def source_mirror(tmp_path: Path, environment: dict[str, str], repo: Repo) -> Path:
    return GitSource(tmp_path / "mirrors", environment, MemoryBlobDigests()).locate(str(repo.folder)).mirror


def start_held_locate(repo: Repo, tmp_path: Path, environment: dict[str, str]) -> "tuple[subprocess.Popen[str], int]":
    """A locate in a process of its own whose fetch stands still, and the pid of what the fetch waits for."""
    started, hold = tmp_path / "started", tmp_path / "hold"
    os.mkfifo(started)
    os.mkfifo(hold)
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho $$ >{started}\nread x <{hold}\nexec "$@"\n')
    hook.chmod(0o755)
    config = tmp_path / "slow"
    config.write_text(f"[uploadpack]\n    packObjectsHook = {hook}\n")
    process = start_locate(tmp_path / "mirrors", repo.folder, environment | {"GIT_CONFIG_GLOBAL": str(config)})
    return process, int(started.read_text())


def is_gone(pid: int) -> bool:
    """Wait until a process has ended, whether or not anybody asks how; False where it lives on."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 20)[0])
    finally:
        os.close(handle)


def test_ctrl_c_ends_the_fetch_too(source: GitSource, repo: Repo, tmp_path: Path, environment: dict[str, str]) -> None:
    """An interrupted locate leaves no fetch running, and the next one is right."""
    process, child = start_held_locate(repo, tmp_path, environment)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert is_gone(child)
    assert source.commit(source.locate(str(repo.folder)), None).title == "the beginning"


def test_a_kill_in_the_middle_of_a_fetch_is_repaired(
    source: GitSource, repo: Repo, tmp_path: Path, environment: dict[str, str]
) -> None:
    """After kill -9 the fetch that was left behind is ended, its traces go, and the next call is right."""
    located = source.locate(str(repo.folder))
    tip = repo.commit("next", a="2")
    process, orphan = start_held_locate(repo, tmp_path, environment)
    process.kill()
    process.communicate()
    torn = located.mirror / "objects" / "pack" / "tmp_pack_torn"
    torn.write_bytes(b"PACK")
    stale = next((located.mirror / "refs" / "from").iterdir()) / "heads" / "main.lock"
    stale.touch()
    (located.mirror / "penstock-snapshot-torn").mkdir()
    assert source.commit(source.locate(str(repo.folder)), None).sha == tip
    assert not torn.exists()
    assert not stale.exists()
    assert not (located.mirror / "penstock-snapshot-torn").exists()
    assert is_gone(orphan)


def test_a_kill_while_a_mirror_is_made_is_repaired(source: GitSource, repo: Repo) -> None:
    """Half a mirror, in its temporary place or at its own, is replaced."""
    mirror = source.locate(str(repo.folder)).mirror
    half = mirror.parent / ".new-abc"
    half.mkdir()
    (mirror / "HEAD").unlink()
    located = source.locate(str(repo.folder))
    assert source.commit(located, None).title == "the beginning"
    assert not half.exists()


def test_a_torn_state_costs_a_fetch_only(source: GitSource, repo: Repo) -> None:
    """What the mirror remembers of a location may be rubbish: it is fetched again."""
    located = source.locate(str(repo.folder))
    (state,) = (located.mirror / "penstock-seen").iterdir()
    for rubbish in (b"", b"[1]", b'{"x": 1}', b"\xff"):
        state.write_bytes(rubbish)
        assert source.commit(source.locate(str(repo.folder)), None).branch == "main"
    state.unlink()
    with pytest.raises(SourceError, match="run the command again"):
        source.commit(located, None)


def test_branches_may_become_folders(source: GitSource, repo: Repo) -> None:
    """`a` deleted and `a/b` made between two fetches is no conflict."""
    repo.git("branch", "topic")
    source.locate(str(repo.folder))
    repo.git("branch", "-D", "topic")
    repo.git("branch", "topic/one")
    assert source.commit(source.locate(str(repo.folder)), None).branches == ("main", "topic/one")


def test_mirrors_that_nobody_needs_are_removed(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """Kept, lately brought near or being written to: it stays; else it goes, and is made again when it is needed."""
    located = source.locate(str(repo.folder))
    hour = 3600.0
    for path in [*(located.mirror / "penstock-seen").iterdir(), located.mirror]:
        os.utime(path, (0, 0))
    source.locate(str(repo.folder))  # nothing to bring, and yet it is used
    assert source.discard((), time.time() - hour) == 0
    assert source.discard({located.mirror}, time.time() + hour) == 0
    with (located.mirror / "penstock-lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert source.discard((), time.time() + hour) == 0
    assert source.discard((), time.time() + hour) == 1
    assert not [path for path in (tmp_path / "mirrors").iterdir() if path.name.endswith(".git")]
    assert source.commit(source.locate(str(repo.folder)), None).sha == repo.git("rev-parse", "HEAD")
