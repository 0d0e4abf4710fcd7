"""The git source brings real repositories near."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from penstock.engine.contracts import CommitFiles, Source
from penstock.errors import EngineError, SourceError
from penstock.sources.git import GitSource, MemoryBlobDigests
from sources.repositories import Repo, new_repo


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
