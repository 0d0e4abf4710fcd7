"""The verb `secret`: values come by stdin or an echoless prompt, and are never shown again."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from acceptance.tiny import Said
from penstock.cli.asking import project_of
from penstock.sources.git import GitSource, MemoryBlobDigests
from penstock.store.secrets import KEY_FILE, Secrets
from penstock.store.sql import open_store
from sources.repositories import Repo, isolated, new_repo

Secret = Callable[..., Said]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = new_repo(tmp_path / "digits", isolated(tmp_path / "person"))
    made.commit("the beginning", a="1")
    return made


def environment(repo: Repo) -> dict[str, str]:
    return {**repo.environment, "PENSTOCK_HOME": str(home(repo))}


def home(repo: Repo) -> Path:
    return repo.folder.parent / "home"


def argv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "secret", *arguments]


@pytest.fixture
def secret(repo: Repo) -> Secret:
    def call(*arguments: str, value: bytes = b"", code: int = 0, folder: str = ".") -> Said:
        done = subprocess.run(
            argv(*arguments),
            cwd=repo.folder / folder,
            env=environment(repo),
            input=value,
            capture_output=True,
            check=False,
        )
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert said.code == code, said
        assert "Traceback" not in said.all
        return said

    return call


def kept(repo: Repo, file: str = "penstock.yaml", **names: str) -> dict[str, str]:
    """The values of some secrets as the engine gets them: for the project that `run` would make of this repository."""
    source = GitSource(home(repo) / "sources", repo.environment, MemoryBlobDigests())
    project = project_of(source.locate(str(repo.folder)), file, "digits").id
    with open_store(home(repo) / "penstock.db") as store:
        return Secrets(store, home(repo) / KEY_FILE).values(project, list(names), **_place(names))


def _place(names: dict[str, str]) -> dict[str, str]:
    found = {place for place in names.values() if place}
    return {"environment": found.pop()} if found else {}


def test_from_set_to_remove(repo: Repo, secret: Secret) -> None:
    """A secret is set before anything ever ran, listed without its value, and removed."""
    assert secret("list").out == "digits has no secrets: penstock secret set NAME keeps one\n"
    assert secret("set", "HF_TOKEN", value=b"hunter2-hunter2\n").out == "HF_TOKEN of digits is set\n"
    assert kept(repo, HF_TOKEN="") == {"HF_TOKEN": "hunter2-hunter2"}
    listed = secret("list")
    assert listed.out.startswith("HF_TOKEN  set 20")
    assert "hunter2" not in listed.all
    assert secret("remove", "HF_TOKEN").out == "HF_TOKEN of digits is removed\n"
    secret("remove", "HF_TOKEN", code=2).refuses('no secret "HF_TOKEN"', "penstock secret list")


def test_an_environments_secret(repo: Repo, secret: Secret) -> None:
    """`--environment` keeps a value beside the project's, for that environment alone."""
    secret("set", "DATABASE_URL", value=b"postgres://all")
    secret("set", "DATABASE_URL", "--environment", "production", value=b"postgres://production")
    assert kept(repo, DATABASE_URL="production") == {"DATABASE_URL": "postgres://production"}
    assert kept(repo, DATABASE_URL="staging") == {"DATABASE_URL": "postgres://all"}
    assert [line.split("  ")[0] for line in secret("list").out.splitlines()] == [
        "DATABASE_URL",
        "DATABASE_URL (production)",
    ]
    secret("remove", "DATABASE_URL", "--environment", "production")
    assert kept(repo, DATABASE_URL="production") == {"DATABASE_URL": "postgres://all"}


def test_the_list_as_json(secret: Secret) -> None:
    """`--json` has names, places, times and actors, and no values."""
    secret("set", "B", "--environment", "staging", value=b"hunter2-hunter2")
    secret("set", "A", value=b"hunter2-hunter2")
    printed = json.loads(secret("list", "--json").out)
    assert printed["project"] == "digits"
    assert [(s["name"], s["environment"]) for s in printed["secrets"]] == [("A", None), ("B", "staging")]
    assert {tuple(s) for s in printed["secrets"]} == {("name", "environment", "set", "by")}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (b"hunter2-hunter2", "hunter2-hunter2"),
        (b"hunter2-hunter2\n", "hunter2-hunter2"),
        (b"hunter2-hunter2\r\n", "hunter2-hunter2"),
        (b" hunter2-hunter2 \n", " hunter2-hunter2 "),
        (b"-----BEGIN-----\nabc\n-----END-----\n", "-----BEGIN-----\nabc\n-----END-----\n"),
    ],
)
def test_the_end_of_a_line_is_no_part_of_a_value(repo: Repo, secret: Secret, given: bytes, value: str) -> None:
    """`echo VALUE |` sets VALUE, and a file of several lines is kept as it is."""
    secret("set", "TOKEN", value=given)
    assert kept(repo, TOKEN="") == {"TOKEN": value}


def test_on_a_terminal_it_asks_without_echo(repo: Repo) -> None:
    """On a terminal the value is asked for, and what is typed does not appear."""
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        argv("set", "TOKEN"),
        cwd=repo.folder,
        env=environment(repo),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"not shown" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"hunter2-hunter2\n")
        with suppress(OSError):  # a terminal whose program has ended cannot be read
            while piece := os.read(terminal, 1000):
                shown += piece
    os.close(terminal)
    assert process.returncode == 0
    assert shown.split() == b"value of TOKEN (not shown): TOKEN of digits is set".split()
    assert kept(repo, TOKEN="") == {"TOKEN": "hunter2-hunter2"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"12345\n", "under 6 characters"),
        (b"", "under 6 characters"),
        (b"a\0bcdefg", "NUL"),
        (b"\xff\xfe\xfd\xfc\xfb\xfa", "UTF-8"),
        (b"x" * 65537, "over 64 KiB"),
        (b"x" * 3_000_000, "over 64 KiB"),
    ],
)
def test_values_that_are_refused(secret: Secret, value: bytes, reason: str) -> None:
    """A value that cannot be kept is refused in one sentence with the reason, and nothing is kept."""
    secret("set", "TOKEN", value=value, code=2).refuses("the value of TOKEN", reason)
    assert "no secrets" in secret("list").out


def test_names_that_are_refused(secret: Secret) -> None:
    """A name that cannot be a variable is refused before a value is read."""
    secret("set", "A-B", code=2).refuses('"A-B" is no name for a secret')
    secret("set", "PENSTOCK_RUN", code=2).refuses("PENSTOCK_")


def test_the_file_of_the_folder_names_the_project(repo: Repo, secret: Secret) -> None:
    """In a folder with a file of its own the secret belongs to that project, as `run` there would make it."""
    repo.commit(**{"sub/penstock.yaml": "name: sub\n"}, message="a second project")
    secret("set", "TOKEN", value=b"of the sub-project", folder="sub")
    assert "no secrets" in secret("list").out
    assert kept(repo, "sub/penstock.yaml", TOKEN="") == {"TOKEN": "of the sub-project"}


def test_outside_any_project(repo: Repo, secret: Secret) -> None:
    """Where there is no repository, and for a project that nobody knows, one sentence says so."""
    secret("list", folder="..", code=2).refuses("not inside a Git repository")
    secret("list", "--project", "other", code=2).refuses('no project "other" in this home')


def test_the_page_tells_every_option(repo: Repo) -> None:
    """docs/secrets.md names the sub-verbs and every option of each."""
    page = (Path(__file__).parents[2] / "docs" / "secrets.md").read_text()
    for verb in ("set", "list", "remove"):
        shown = subprocess.run(argv(verb, "--help"), env=environment(repo), capture_output=True, check=True).stdout
        assert f"penstock secret {verb}" in page
        assert b"Example: penstock secret " in shown
        options = {word for word in shown.decode().split() if word.startswith("--")} - {"--help"}
        assert [option for option in options if option not in page] == []
