"""pyproject.toml, uv.lock and pylock.toml as text."""

import pytest

from penstock.errors import SourceError
from penstock.runtimes import projects

PROJECT = b'[project]\nname = "a"\nversion = "1"\ndependencies = ["six"]\n'


def refused(kind: str, **files: bytes) -> str:
    commit = {name.replace("__", ".").replace("_in_", "/"): data for name, data in files.items()}
    read = {"project": projects.project_files, "uv": projects.uv_lock_files, "pylock": projects.pylock_files}[kind]
    file = {"project": "pyproject.toml", "uv": "uv.lock", "pylock": "pylock.toml"}[kind]
    with pytest.raises(SourceError) as caught:
        read(file, commit.get)
    return str(caught.value)


def test_a_project_comes_with_what_its_lock_needs() -> None:
    """The lock, uv's settings and the members of a workspace belong to a project; nothing else does."""
    lock = b"""
    [manifest]
    members = ["a", "member"]
    [[package]]
    name = "a"
    source = { editable = "." }
    [[package]]
    name = "member"
    source = { editable = "packages/member" }
    [[package]]
    name = "six"
    source = { registry = "https://e.org" }
    """
    commit = {
        "app/pyproject.toml": PROJECT,
        "app/uv.lock": lock,
        "app/packages/member/pyproject.toml": PROJECT,
        "uv.toml": b"",
        "app/main.py": b"",
    }
    assert set(projects.project_files("app/pyproject.toml", commit.get)) == set(commit) - {"app/main.py"}
    assert set(projects.uv_lock_files("app/uv.lock", commit.get)) == set(commit) - {"app/main.py"}


def test_the_nearest_settings_of_uv_count() -> None:
    """The settings nearest to a file are its own, as uv itself would look for them."""
    commit = {"uv.toml": b"", "a/pyproject.toml": b"[tool.uv]\nno-index = true\n", "a/b/pyproject.toml": PROJECT}
    assert set(projects.uv_files("a/b/r.txt", commit.get)) == {"a/pyproject.toml"}
    assert set(projects.uv_files("r.txt", commit.get)) == {"uv.toml"}
    assert projects.uv_files("r.txt", lambda _: None) == {}


def test_what_cannot_be_locked_is_refused() -> None:
    """Each refusal names the file, what is wrong with it and what to do."""
    assert refused("project").startswith("runtime names pyproject.toml, which the commit does not have: ")
    assert refused("project", pyproject__toml=b"a =").startswith("pyproject.toml is not valid TOML (")
    assert refused("project", pyproject__toml=b"[tool.x]\n").startswith("pyproject.toml has no [project] table: ")
    dynamic = b'[project]\nname = "a"\ndynamic = ["dependencies"]\n'
    assert refused("project", pyproject__toml=dynamic).startswith("pyproject.toml leaves its dependencies to its build")
    local = PROJECT + b'[tool.uv.sources]\nlib = { path = "lib" }\n'
    assert refused("project", pyproject__toml=local).startswith("pyproject.toml takes lib from a local path, ")
    lock = b'[[package]]\nname = "lib"\nsource = { directory = "lib" }\n'
    said = refused("project", pyproject__toml=PROJECT, uv__lock=lock)
    assert said.startswith("uv.lock takes lib from the local path lib, ")
    assert refused("uv", uv__lock=b"").startswith("uv.lock has no pyproject.toml beside it: ")
    assert refused("pylock").startswith("runtime names pylock.toml, which the commit does not have")
    assert refused("pylock", pylock__toml=b"").startswith("pylock.toml has no lock-version and so is no pylock.toml")
    for package in (b'directory = { path = "lib" }', b'archive = { path = "a" }', b'wheels = [{ path = "a" }]'):
        text = b'lock-version = "1.0"\n[[packages]]\nname = "lib"\n' + package
        assert refused("pylock", pylock__toml=text).startswith("pylock.toml takes lib from a local path: ")


def test_groups_are_those_that_uv_installs() -> None:
    """`dev` where it exists, or what the project says."""
    known: dict[str, object] = {"dependency-groups": {"dev": [], "test": []}}
    assert projects.groups({}) == []
    assert projects.groups(known) == ["dev"]
    assert projects.groups({**known, "tool": {"uv": {"default-groups": ["test", "none"]}}}) == ["test"]
    assert projects.groups({**known, "tool": {"uv": {"default-groups": "all"}}}) == ["dev", "test"]


def test_addresses_of_a_project() -> None:
    """Indexes are given as options of a requirements file; folders of the repository are not."""
    text = b"""
    [[tool.uv.index]]
    name = "cpu"
    url = "https://e.org/pytorch"
    explicit = true
    [[tool.uv.index]]
    url = "https://e.org/own"
    default = true
    [tool.uv.pip]
    find-links = ["https://e.org/links", "./wheels"]
    """
    assert projects.addresses("pyproject.toml", text) == [
        "--extra-index-url https://e.org/pytorch",
        "--index-url https://e.org/own",
        "--find-links https://e.org/links",
    ]
    assert projects.addresses("uv.toml", b'index-url = "https://e.org"\n') == ["--index-url https://e.org"]
