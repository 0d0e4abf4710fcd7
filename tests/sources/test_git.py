"""The git source on real repositories."""

import gc
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from blake3 import blake3
from sources.repositories import Repo, isolated, new_repo

from penstock.artifacts import Digest, File, Link, digest_of_bytes
from penstock.engine.contracts import CommitFiles, Source
from penstock.errors import EngineError, SourceError
from penstock.sources.git import GitSource, MemoryBlobDigests, lfs_pointers


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return isolated(tmp_path / "person")


@pytest.fixture
def repo(tmp_path: Path, environment: dict[str, str]) -> Repo:
    made = new_repo(tmp_path / "project", environment)
    made.commit("the beginning", a="1")
    return made


@pytest.fixture
def source(tmp_path: Path, environment: dict[str, str]) -> GitSource:
    return GitSource(tmp_path / "mirrors", environment, MemoryBlobDigests())


@pytest.fixture
def over_ssh(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment whose ssh is this machine: the real protocol, no network."""
    script = tmp_path / "ssh"
    script.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    script.chmod(0o755)
    return environment | {"GIT_SSH": str(script), "GIT_SSH_VARIANT": "ssh"}


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and digest of each file below a folder; git sets the time of an object that is written once more."""
    return {
        str(f): (0 if "objects" in f.parts else f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest())
        for f in folder.rglob("*")
        if f.is_file()
    }


# --- locate ----------------------------------------------------------------------------------------------------------


def test_it_is_a_source(source: GitSource, repo: Repo) -> None:
    """GitSource and what it returns keep the engine's contracts."""
    as_source: Source = source
    located = as_source.locate(str(repo.folder))
    files: CommitFiles = as_source.files(located.mirror, as_source.commit(located, None).sha)
    assert list(files.tree) == ["a"]


def test_any_path_inside_a_checkout_is_the_checkout(source: GitSource, repo: Repo) -> None:
    """A folder, a file in it, `.` and a file URL lead to one place, named by its path."""
    repo.commit(**{"sub/penstock.yaml": "name: x"})
    there = [source.locate(str(repo.folder / p)) for p in (".", "sub", "sub/penstock.yaml")]
    there.append(source.locate(repo.folder.as_uri()))
    assert len(set(there)) == 1
    assert there[0].identity == str(repo.folder)
    assert there[0].name == "project"
    assert there[0].checkout == repo.folder
    assert there[0].uncommitted == ()


def test_a_bare_repository_has_no_checkout(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A bare repository is its own project; its HEAD is the default branch."""
    bare = repo.clone(tmp_path / "bare.git", "--bare")
    bare.git("remote", "remove", "origin")
    located = source.locate(str(bare.folder))
    assert (located.identity, located.name, located.checkout) == (str(bare.folder), "bare", None)
    assert source.commit(located, None).default_branch == "main"
    with pytest.raises(SourceError, match="no working tree"):
        source.snapshot(located)


def test_a_clone_shares_the_identity_of_its_origin(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A clone and where it came from are one project with one mirror, and neither prunes the other's branches."""
    clone = repo.clone(tmp_path / "clone")
    clone.git("switch", "--quiet", "-c", "mine")
    mine = clone.commit("only here", b="2")
    repo.git("branch", "theirs")
    one, two = source.locate(str(clone.folder)), source.locate(str(repo.folder))
    assert one.identity == two.identity
    assert one.mirror == two.mirror
    repo.git("branch", "-D", "theirs")
    two = source.locate(str(repo.folder))
    assert source.commit(one, "mine").sha == mine
    with pytest.raises(SourceError, match='named "mine"'):
        source.commit(two, "mine")
    with pytest.raises(SourceError, match='named "theirs"'):
        source.commit(two, "theirs")


def test_the_identity_is_the_normalised_origin(source: GitSource, repo: Repo) -> None:
    """The origin's address names the project, without being reached for; a rewriting rule is followed."""
    repo.git("remote", "add", "origin", "git@Example.ORG:team/digits.git")
    assert source.locate(str(repo.folder)).identity == "example.org/team/digits"
    repo.git("remote", "set-url", "origin", "gh:team/digits")
    repo.git("config", "url.https://example.org/.insteadOf", "gh:")
    located = source.locate(str(repo.folder))
    assert (located.identity, located.name) == ("example.org/team/digits", "digits")


def test_an_origin_of_an_unknown_kind_leaves_the_folder_as_identity(source: GitSource, repo: Repo) -> None:
    """An origin that Penstock would never read does not stop a run of what lies here."""
    repo.git("config", "remote.origin.url", "ext::sh -c id")
    assert source.locate(str(repo.folder)).identity == str(repo.folder)


def test_worktrees_are_one_project_with_heads_of_their_own(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """A worktree shares identity and mirror; its HEAD is its own."""
    repo.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    side = Repo(tmp_path / "side", repo.environment)
    tip = side.commit("aside", b="2")
    one, two = source.locate(str(repo.folder)), source.locate(str(side.folder))
    assert (one.identity, one.mirror) == (two.identity, two.mirror)
    assert source.commit(two, None).sha == tip
    assert source.commit(two, None).branch == "side"
    assert source.commit(one, None).branch == "main"


def test_a_clone_url_follows_its_remote(repo: Repo, tmp_path: Path, over_ssh: dict[str, str]) -> None:
    """Over the ssh protocol: HEAD, branches, tags and later pushes are seen; nothing is uncommitted there."""
    bare = repo.clone(tmp_path / "digits.git", "--bare")
    source = GitSource(tmp_path / "mirrors", over_ssh, MemoryBlobDigests())
    url = f"ssh://git@example.org{bare.folder}"
    located = source.locate(url)
    assert located.identity == f"example.org{bare.folder}".removesuffix(".git")
    assert (located.name, located.checkout, located.location) == ("digits", None, url)
    first = source.commit(located, None)
    assert (first.branch, first.default_branch, first.branches) == ("main", "main", ("main",))
    tip = repo.commit("next", a="2")
    repo.git("tag", "v2")
    repo.git("push", "--quiet", str(bare.folder), "main", "v2")
    assert source.commit(source.locate(url), None).sha == tip
    assert source.commit(located, "v2").branch is None
    assert source.version(located, source.commit(located, "v2")) == "2"


def test_a_full_name_that_no_branch_holds_is_asked_of_the_remote(
    repo: Repo, tmp_path: Path, over_ssh: dict[str, str]
) -> None:
    """A commit that was on a branch yesterday is still a commit: here, and there where the remote gives it."""
    gone = repo.commit("gone", b="2")
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    source = GitSource(tmp_path / "mirrors", over_ssh, MemoryBlobDigests())
    for location, name in ((str(repo.folder), gone[:8]), (f"git@example.org:{repo.folder}", gone)):
        commit = source.commit(source.locate(location), name)
        assert (commit.sha, commit.branches, commit.branch) == (gone, (), None)
    with pytest.raises(SourceError, match="no branch, tag or commit named"):
        source.commit(source.locate(f"git@example.org:{repo.folder}"), "0" * 40)


def test_a_persons_own_rule_changes_where_a_url_leads(repo: Repo, tmp_path: Path, over_ssh: dict[str, str]) -> None:
    """`insteadOf` works for locations: the identity is what the address stands for."""
    config = Path(over_ssh["GIT_CONFIG_GLOBAL"])
    config.write_text(f'{config.read_text()}\n[url "ssh://git@example.org{tmp_path}/"]\n    insteadOf = work:\n')
    source = GitSource(tmp_path / "mirrors", over_ssh, MemoryBlobDigests())
    located = source.locate("work:project")
    assert located.identity == f"example.org{repo.folder}"
    assert source.commit(located, None).title == "the beginning"
    config.write_text(f'{config.read_text()}\n[url "{tmp_path}/"]\n    insteadOf = near:\n')
    assert source.locate("near:project").identity == str(repo.folder)


def test_a_folder_that_looks_like_an_address_is_a_folder(
    source: GitSource, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a:b` is a host and a path only where no such folder is."""
    made = new_repo(tmp_path / "a:b", environment)
    made.commit(x="1")
    monkeypatch.chdir(tmp_path)
    assert source.locate("a:b").identity == str(made.folder)


def test_a_surrounding_git_does_not_redirect(repo: Repo, tmp_path: Path, environment: dict[str, str]) -> None:
    """Run from a hook, the variables of the outer git change nothing."""
    other = new_repo(tmp_path / "other", environment)
    other.commit(z="9")
    outer = {"GIT_DIR": str(other.folder / ".git"), "GIT_INDEX_FILE": "nowhere", "GIT_WORK_TREE": str(other.folder)}
    source = GitSource(tmp_path / "mirrors", environment | outer, MemoryBlobDigests())
    located = source.locate(str(repo.folder))
    assert located.uncommitted == ()
    assert source.commit(located, None).title == "the beginning"


def test_sha256_repositories(source: GitSource, environment: dict[str, str], tmp_path: Path) -> None:
    """A repository of the newer object format is as good as any."""
    folder = tmp_path / "new"
    folder.mkdir()
    made = Repo(folder, environment)
    made.git("init", "--quiet", "--object-format=sha256")
    sha = made.commit(a="1")
    located = source.locate(str(folder))
    assert len(sha) == 64
    assert source.commit(located, sha[:6]).sha == sha
    assert source.read(located.mirror, sha, "a") == b"1"


def test_uncommitted_paths_are_named(source: GitSource, repo: Repo) -> None:
    """Changed, staged, deleted, renamed and untracked paths; not the ignored; odd names whole."""
    repo.commit(b="2", c="3", **{".gitignore": "*.log"})
    repo.write(a="changed", odd="x", **{"noise.log": "x", "folder/x": "x", "new\nline é": "x"})
    repo.git("add", "odd")
    repo.git("rm", "--quiet", "b")
    repo.git("mv", "c", "d")
    expected = ("a", "b", "c", "d", "folder/", "new\nline é", "odd")
    assert source.locate(str(repo.folder)).uncommitted == expected


# --- kind sentences --------------------------------------------------------------------------------------------------


def test_what_is_no_repository(source: GitSource, tmp_path: Path, environment: dict[str, str]) -> None:
    """No repository, no such folder, a name that is too long, no commits: each its sentence."""
    with pytest.raises(SourceError, match=r"is not inside a Git repository: run `git init` and commit"):
        source.locate(str(tmp_path))
    with pytest.raises(SourceError, match="nowhere does not exist"):
        source.locate(str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match="does not exist"):
        source.locate("x" * 300)
    empty = new_repo(tmp_path / "empty", environment)
    with pytest.raises(SourceError, match="has no commits yet"):
        source.locate(str(empty.folder))


def test_an_empty_remote(tmp_path: Path, environment: dict[str, str], over_ssh: dict[str, str]) -> None:
    """A remote to which nothing was pushed says so."""
    empty = new_repo(tmp_path / "empty", environment)
    source = GitSource(tmp_path / "mirrors", over_ssh, MemoryBlobDigests())
    with pytest.raises(SourceError, match="no commits yet: commit and push"):
        source.locate(f"git@example.org:{empty.folder}")
    with pytest.raises(SourceError, match="no Git repository at"):
        source.locate(f"git@example.org:{tmp_path}/nowhere")


def test_a_repository_of_another_user(repo: Repo, tmp_path: Path, environment: dict[str, str]) -> None:
    """Git's distrust of another user's repository comes with the command that ends it."""
    stranger = environment | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    source = GitSource(tmp_path / "mirrors", stranger, MemoryBlobDigests())
    with pytest.raises(SourceError, match=f"safe.directory {repo.folder}`"):
        source.locate(str(repo.folder))


def test_a_missing_and_an_old_git(repo: Repo, tmp_path: Path, environment: dict[str, str]) -> None:
    """Without git, or with one too old, the sentence says which to install."""
    tools = tmp_path / "tools"
    tools.mkdir()
    bare = environment | {"PATH": str(tools)}
    with pytest.raises(SourceError, match="git is not installed"):
        GitSource(tmp_path / "m", bare, MemoryBlobDigests()).locate(str(repo.folder))
    (tools / "git").write_text("#!/bin/sh\necho git version 2.20.1\n")
    (tools / "git").chmod(0o755)
    with pytest.raises(SourceError, match=r"too old \(git version 2.20.1\): install git 2.31"):
        GitSource(tmp_path / "m", bare, MemoryBlobDigests()).locate(str(repo.folder))
    (tools / "git").write_text("#!/nowhere/sh\n")
    with pytest.raises(SourceError, match="git cannot be started"):
        GitSource(tmp_path / "m", bare, MemoryBlobDigests()).locate(str(repo.folder))


class _Locked(BaseHTTPRequestHandler):
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def locked_server() -> Iterator[tuple[str, list[str | None]]]:
    """A loopback server that asks for a password, and what it was sent."""
    seen: list[str | None] = []
    handler = type("Handler", (_Locked,), {"seen": seen})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_a_password_is_never_asked_for(
    locked_server: tuple[str, list[str | None]], tmp_path: Path, environment: dict[str, str]
) -> None:
    """A server that wants a password ends the call with a sentence; the desktop's dialogue is not opened."""
    dialogue, asked = tmp_path / "dialogue", tmp_path / "asked"
    dialogue.write_text(f"#!/bin/sh\ntouch {asked}\n")
    dialogue.chmod(0o755)
    desktop = environment | {"SSH_ASKPASS": str(dialogue), "DISPLAY": ":0"}
    source = GitSource(tmp_path / "mirrors", desktop, MemoryBlobDigests())
    with pytest.raises(SourceError, match="refused your credentials"):
        source.locate(f"http://{locked_server[0]}/x.git")
    assert not asked.exists()


def test_a_password_in_the_url_is_used_and_shown_nowhere(
    locked_server: tuple[str, list[str | None]], source: GitSource
) -> None:
    """The password reaches the server, and neither the message nor an argument list."""
    host, seen = locked_server
    with pytest.raises(SourceError, match="refused your credentials") as caught:
        source.locate(f"http://ada:s3cret@{host}/x.git")
    assert "s3cret" not in str(caught.value)
    assert any(header is not None and header.startswith("Basic ") for header in seen)


def test_an_unreachable_host(source: GitSource) -> None:
    """A host that does not answer is told apart from one that refuses."""
    with pytest.raises(SourceError, match="cannot be reached"):
        source.locate("http://127.0.0.1:1/x.git")


def test_a_folder_that_cannot_hold_mirrors(repo: Repo, tmp_path: Path, environment: dict[str, str]) -> None:
    """A home that cannot be written is an error of the engine with its sentence."""
    (tmp_path / "file").write_text("x")
    source = GitSource(tmp_path / "file" / "mirrors", environment, MemoryBlobDigests())
    with pytest.raises(EngineError, match="cannot be written"):
        source.locate(str(repo.folder))


# --- shallow clones --------------------------------------------------------------------------------------------------


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


# --- several at once, and kills --------------------------------------------------------------------------------------

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


def test_a_kill_in_the_middle_of_a_fetch_is_repaired(
    source: GitSource, repo: Repo, tmp_path: Path, environment: dict[str, str]
) -> None:
    """After kill -9 the fetch that was left behind is ended, its locks and torn packs go, and the next call is right."""
    located = source.locate(str(repo.folder))
    tip = repo.commit("next", a="2")
    started, hold = tmp_path / "started", tmp_path / "hold"
    os.mkfifo(started)
    os.mkfifo(hold)
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho $$ >{started}\nread x <{hold}\nexec "$@"\n')
    hook.chmod(0o755)
    config = tmp_path / "slow"
    config.write_text(f"[uploadpack]\n    packObjectsHook = {hook}\n")
    process = start_locate(tmp_path / "mirrors", repo.folder, environment | {"GIT_CONFIG_GLOBAL": str(config)})
    orphan = int(started.read_text())
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
    assert not Path(f"/proc/{orphan}").exists() or "Z" in Path(f"/proc/{orphan}/stat").read_text().split()[2]


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


# --- commits ---------------------------------------------------------------------------------------------------------


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


# --- snapshots -------------------------------------------------------------------------------------------------------


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


# --- versions and changes --------------------------------------------------------------------------------------------


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


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_files_of_a_commit(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """Executables, links, odd names, one blob as file and as link; submodules are absent."""
    inner = new_repo(tmp_path / "inner", repo.environment)
    inner.commit(z="1")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.folder.as_uri(), "sub")
    repo.write(**{"target": "a", "new\nline": "x", "tab\t\"é": "y", "deep/er/file": "", "big": "z" * (3 << 20)})
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


def test_five_thousand_files_are_quick(source: GitSource, repo: Repo, record_property: Callable[[str, object], None]) -> None:
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
