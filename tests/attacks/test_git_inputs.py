"""Rows 14 to 17 of the attacks: addresses, references, submodules and settings that a repository brings along."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine.contracts import Located
from penstock.errors import SourceError
from penstock.sources.git import GitSource, MemoryBlobDigests
from sources.repositories import Repo, isolated, new_repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = new_repo(tmp_path / "project", isolated(tmp_path / "person"))
    made.commit("the beginning", a="1")
    return made


@pytest.fixture
def source(tmp_path: Path, repo: Repo) -> GitSource:
    return GitSource(tmp_path / "mirrors", repo.environment, MemoryBlobDigests())


@pytest.fixture
def located(source: GitSource, repo: Repo) -> Located:
    return source.locate(str(repo.folder))


@pytest.fixture
def no_git(tmp_path: Path) -> GitSource:
    """A source whose git leaves a mark when it is started at all."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").write_text(f"#!/bin/sh\n: >{tmp_path}/started\n")
    (tools / "git").chmod(0o755)
    return GitSource(tmp_path / "mirrors", {"PATH": str(tools)}, MemoryBlobDigests())


# --- row 14: addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "ext::sh -c touch% pwned",
        "EXT::sh -c id",
        "fd::17/foo",
        "::x",
        "--upload-pack=touch pwned",
        "-oProxyCommand=touch pwned",
        "-",
        "ssh://-oProxyCommand=touch%20pwned/x",
        "ssh://git@-oProxyCommand=x/x",
        "ssh://%2doProxyCommand=x/x",
        "-oProxyCommand=x:x",
        "git@-oProxyCommand=x:x",
        "git://example.org/x",
        "ftp://example.org/x",
        "http://example.org/x",
        "http://169.254.169.254/latest",
        "file://evil.example.org/share",
        "gopher://x/y",
        "https://example.org/x\r\nHost: y",
        "https://example.org/\u2028x",
        "a\0b",
        "\n",
    ],
)
def test_row_14_addresses_are_refused_before_git_starts(no_git: GitSource, tmp_path: Path, location: str) -> None:
    """Commands, options, unencrypted and unknown transports get a sentence, and git is never started."""
    with pytest.raises(SourceError):
        no_git.locate(location)
    assert not (tmp_path / "started").exists()


def test_row_14_a_file_url_is_a_folder_of_this_machine_and_nothing_more(source: GitSource, tmp_path: Path) -> None:
    """A file URL that leads to no repository is refused as a folder is; it reads no file."""
    with pytest.raises(SourceError, match="is not inside a Git repository"):
        source.locate("file:///etc/passwd")
    with pytest.raises(SourceError, match="is not inside a Git repository"):
        source.locate(tmp_path.as_uri())


def test_row_14_a_folder_named_like_a_command_is_no_command(repo: Repo, tmp_path: Path) -> None:
    """The path that git is given is absolute, so that no folder's name is taken for a transport or an option."""
    home = tmp_path / "ext::sh -c touch pwned"
    made = new_repo(home / "-x", repo.environment)
    made.commit(a="1")
    source = GitSource(tmp_path / "mirrors", repo.environment, MemoryBlobDigests())
    assert source.commit(source.locate(str(made.folder)), None).title == "a change"
    assert not list(tmp_path.rglob("pwned"))


def test_row_14_a_persons_rule_cannot_lead_to_a_command(repo: Repo, tmp_path: Path) -> None:
    """A rewriting rule that ends in `ext::` is refused, whoever wrote it."""
    config = Path(repo.environment["GIT_CONFIG_GLOBAL"])
    config.write_text(f'{config.read_text()}\n[url "ext::touch {tmp_path}/pwned "]\n    insteadOf = https://h/\n')
    source = GitSource(tmp_path / "mirrors", repo.environment, MemoryBlobDigests())
    with pytest.raises(SourceError, match="run a command"):
        source.locate("https://h/x")
    assert not (tmp_path / "pwned").exists()


# --- row 15: references ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ref",
    [
        "--output=pwned",
        "-h",
        "--all",
        "@{",
        "@{-1}",
        "main@{upstream}",
        "main@{yesterday}",
        "main\r\nx",
        "main\u2028x",
        "main\u2029",
        "main\u00a0x",
        "ma\u202ein",
        "main\0",
        "main..HEAD",
        "main...HEAD",
        "^main",
        "main^{/x}",
        "main^{tree}",
        ":/fix",
        ":a",
        "HEAD:a",
        "main x",
        "*",
        "[a]",
        "a//b",
        "/a",
        "a/",
        ".a",
        "a/.b",
        "a.lock",
        "a.",
        "a\\b",
        "",
        "~1",
        "x" * 5000,
    ],
)
def test_row_15_references_are_refused(source: GitSource, located: Located, tmp_path: Path, ref: str) -> None:
    """Options, ranges, reflog entries, searches and separators are no names, and nothing is written anywhere."""
    with pytest.raises(SourceError) as caught:
        source.commit(located, ref)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert not list(tmp_path.rglob("pwned"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.text(alphabet=st.sampled_from("-@{}~^:/.HEADmain01 \n\u2028*"), max_size=12))
def test_row_15_any_reference_is_a_commit_or_one_sentence(source: GitSource, located: Located, ref: str) -> None:
    """Whatever is asked for, the answer is a commit of this repository or one sentence."""
    try:
        commit = source.commit(located, ref)
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either way is right)
    else:
        assert commit.title == "the beginning"


def test_row_15_hostile_branch_names_are_data(source: GitSource, repo: Repo) -> None:
    """Branches that others named to hurt are listed as they are and hurt nobody."""
    sha = repo.git("rev-parse", "HEAD")
    names = ["$(touch-pwned)", ";id", "`id`", "--output=x", "a\u2028b", "\u202eevil"]
    for name in names:
        repo.git("update-ref", f"refs/heads/{name}", sha)
    found = source.commit(source.locate(str(repo.folder)), "main")
    assert sorted(found.branches) == sorted([*names, "main"])


# --- row 16: submodules, and what a tree may hold ---------------------------------------------------------------------


def raw_commit(repo: Repo, rows: bytes) -> str:
    """A commit of a tree that git's own commands would refuse to make by way of the index."""
    tree = repo.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", text=rows)
    sha = repo.git("commit-tree", tree, "-m", "hostile")
    repo.git("update-ref", "refs/heads/hostile", sha)
    return sha


def row(mode: str, name: bytes, oid: str) -> bytes:
    return mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid)


@pytest.mark.parametrize("name", [b"..", b".", b".git", b".GIT", b"a/../../b"])
def test_row_16_names_that_leave_or_rule_the_workspace_are_refused(source: GitSource, repo: Repo, name: bytes) -> None:
    """A tree with `..` or `.git` in it is refused as a whole, in one sentence."""
    blob = repo.git("rev-parse", "HEAD:a")
    raw_commit(repo, row("100644", name, blob))
    located = source.locate(str(repo.folder))
    with pytest.raises(SourceError):
        source.files(located.mirror, source.commit(located, "hostile").sha)


def test_row_16_a_git_folder_in_the_tree_is_refused(source: GitSource, repo: Repo) -> None:
    """`.git/config` laid out in a workspace would be a repository with settings of somebody else's choice."""
    blob = repo.git("rev-parse", "HEAD:a")
    inner = repo.git("mktree", text=f"100644 blob {blob}\tconfig\n".encode())
    raw_commit(repo, row("40000", b".Git", inner))
    located = source.locate(str(repo.folder))
    with pytest.raises(SourceError, match="keeps for itself"):
        source.files(located.mirror, source.commit(located, "hostile").sha)


def test_row_16_a_name_that_is_not_utf_8_is_refused(source: GitSource, repo: Repo) -> None:
    """A file name of other bytes is told, not guessed at; a change that touches it can still be shown."""
    blob = repo.git("rev-parse", "HEAD:a")
    raw_commit(repo, row("100644", b"caf\xe9", blob))
    located = source.locate(str(repo.folder))
    commit = source.commit(located, "hostile")
    with pytest.raises(SourceError, match=r"caf\\+xe9' is not UTF-8: rename"):
        source.files(located.mirror, commit.sha)
    assert source.change(located, commit).paths == ("caf\\xe9",)


def test_row_16_a_link_and_what_lies_below_it_is_refused(source: GitSource, repo: Repo) -> None:
    """A name that is a link and a folder at once leads nowhere: the tree is refused."""
    blob = repo.git("rev-parse", "HEAD:a")
    inner = repo.git("mktree", text=f"100644 blob {blob}\tx\n".encode())
    raw_commit(repo, row("120000", b"a", blob) + row("40000", b"a", inner))
    located = source.locate(str(repo.folder))
    with pytest.raises(SourceError, match="at once"):
        source.files(located.mirror, source.commit(located, "hostile").sha)


def test_row_16_submodules_are_never_fetched(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """Submodules with hostile names, addresses and carriage returns are absent, and nothing is cloned or run."""
    modules = (
        '[submodule "../../evil"]\n\tpath = sub\n\turl = -u./pwned\n'
        f'[submodule "x"]\n\tpath = "sub\\r"\n\turl = ext::touch {tmp_path}/pwned\n\tupdate = !touch {tmp_path}/pwned\n'
    )
    repo.put(".gitmodules", modules)
    repo.git("add", ".gitmodules")
    sha = repo.git("rev-parse", "HEAD")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{sha},sub")
    repo.git("commit", "--quiet", "-m", "submodules")
    located = source.locate(str(repo.folder))
    assert list(source.files(located.mirror, source.commit(located, None).sha).tree) == [".gitmodules", "a"]
    assert source.snapshot(located).title == "submodules"
    assert not list(tmp_path.rglob("pwned"))
    assert not (located.mirror / "modules").exists()


def test_row_16_hooks_never_run(repo: Repo, tmp_path: Path) -> None:
    """No hook of the repository, of the person's template or of the mirror runs in any call."""
    hooks = [repo.folder / ".git" / "hooks", tmp_path / "template" / "hooks"]
    for folder in hooks:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc", "post-commit"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
            (folder / name).chmod(0o755)
    config = Path(repo.environment["GIT_CONFIG_GLOBAL"])
    config.write_text(f"{config.read_text()}\n[init]\n    templateDir = {tmp_path}/template\n")
    source = GitSource(tmp_path / "mirrors", repo.environment, MemoryBlobDigests())
    repo.write(a="dirty")
    located = source.locate(str(repo.folder))
    (located.mirror / "hooks").mkdir(exist_ok=True)
    hook = located.mirror / "hooks" / "reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    hook.chmod(0o755)
    repo.environment["GIT_CONFIG_COUNT"] = "1"
    repo.environment.update({"GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": "/dev/null"})
    repo.git("branch", "more")
    source.snapshot(source.locate(str(repo.folder)))
    assert not (tmp_path / "pwned").exists()


# --- row 17: settings and programs that a repository brings along ----------------------------------------------------


def test_row_17_commands_in_the_repositorys_own_config_are_not_executed(
    source: GitSource, repo: Repo, tmp_path: Path
) -> None:
    """fsmonitor, filters, ssh commands, credential helpers and the like of `.git/config` stay words."""
    evil = f"touch {tmp_path}/pwned;"
    repo.commit(**{".gitattributes": "* filter=evil diff=evil\n"})
    for name in (
        "core.fsmonitor",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.external",
        "core.sshCommand",
        "core.askPass",
        "core.pager",
        "core.gitProxy",
        "core.alternateRefsCommand",
        "uploadpack.packObjectsHook",
        "credential.helper",
        "gpg.program",
    ):
        repo.git("config", name, evil)
    repo.git("config", "filter.evil.required", "true")
    repo.git("config", "log.showSignature", "true")
    (tmp_path / "pwned").unlink(missing_ok=True)
    repo.put("a", "dirty")
    repo.put("new", "x")
    located = source.locate(str(repo.folder))
    commit = source.snapshot(located)
    source.version(located, commit)
    source.change(located, commit)
    assert source.read(located.mirror, commit.sha, "a") == b"dirty"
    assert not (tmp_path / "pwned").exists()


def test_row_17_settings_of_a_worktree_are_not_executed_either(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    """The config of one working tree is as much the repository's as `.git/config` is."""
    repo.git("config", "extensions.worktreeConfig", "true")
    repo.commit(**{".gitattributes": "* filter=evil\n"})
    repo.git("config", "--worktree", "filter.evil.clean", f"touch {tmp_path}/pwned; cat")
    repo.put("a", "dirty")
    source.snapshot(source.locate(str(repo.folder)))
    assert not (tmp_path / "pwned").exists()


def test_row_17_a_bare_repository_inside_a_checkout_is_not_obeyed(
    source: GitSource, repo: Repo, tmp_path: Path
) -> None:
    """A folder that a commit brought and that looks like a bare repository runs nothing, named or not."""
    inner = repo.clone(repo.folder / "assets", "--bare")
    inner.git("config", "core.fsmonitor", f"touch {tmp_path}/pwned;")
    inner.git("config", "uploadpack.packObjectsHook", f"touch {tmp_path}/pwned;")
    source.locate(str(inner.folder))
    located = source.locate(str(repo.folder))
    assert located.checkout == repo.folder
    source.snapshot(located)
    assert not (tmp_path / "pwned").exists()


def test_row_17_a_git_in_the_folder_is_not_the_git(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `git` or `ssh` that lies in the repository is not started, even where `.` is on the PATH."""
    for name in ("git", "ssh", "git-upload-pack"):
        repo.put(name, f"#!/bin/sh\ntouch {tmp_path}/pwned\n").chmod(0o755)
    monkeypatch.chdir(repo.folder)
    path = f".::bin:{repo.environment['PATH']}"
    source = GitSource(tmp_path / "mirrors", repo.environment | {"PATH": path}, MemoryBlobDigests())
    source.snapshot(source.locate("."))
    assert not (tmp_path / "pwned").exists()


def test_row_17_a_home_inside_a_repository_takes_no_orders_from_it(repo: Repo, tmp_path: Path) -> None:
    """Mirrors that lie inside somebody's checkout do not follow its rewriting rules or commands."""
    repo.git("config", "core.sshCommand", f"touch {tmp_path}/pwned;")
    repo.git("config", f"url.{tmp_path}/.insteadOf", "ssh://git@127.0.0.1:1/")
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho Connection refused >&2\nexit 255\n")
    ssh.chmod(0o755)
    variables = repo.environment | {"PATH": f"{tmp_path}:{repo.environment['PATH']}"}
    source = GitSource(repo.folder / "home" / "mirrors", variables, MemoryBlobDigests())
    with pytest.raises(SourceError, match="cannot be reached"):
        source.locate("ssh://git@127.0.0.1:1/project")
    assert not (tmp_path / "pwned").exists()


def test_row_17_replaced_objects_do_not_count(source: GitSource, repo: Repo) -> None:
    """A replace reference that shows other content under a commit's name is not followed."""
    sha = repo.git("rev-parse", "HEAD")
    other = repo.commit("other", a="other")
    repo.git("replace", sha, other)
    located = source.locate(str(repo.folder))
    assert source.read(located.mirror, sha, "a") == b"1"


def test_row_17_the_mirror_takes_no_settings_along(located: Located, repo: Repo) -> None:
    """A mirror's config is git's own for a bare repository: nothing of the source comes into it."""
    words = subprocess.run(
        ["git", "config", "--file", str(located.mirror / "config"), "--name-only", "--list"],
        env=repo.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(words) <= {"core.repositoryformatversion", "core.filemode", "core.bare", "core.ignorecase"}
