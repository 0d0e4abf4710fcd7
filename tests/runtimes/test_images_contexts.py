"""An image is built from what its Dockerfile takes of its folder, so an unrelated change builds nothing anew."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import SourceError
from penstock.runtimes.contexts import context_files, unignored

COMMIT: Mapping[str, bytes | None] = {
    "README.md": b"read",
    "requirements.txt": b"six",
    "src/a.py": b"a",
    "src/b/c.py": b"c",
    "docker/app/x": b"x",
    "docker/data/big.bin": b"big",
    "docker/data/small.txt": b"small",
}

NOTHING: Mapping[str, bytes] = {}


def context(file: str, text: str, more: Mapping[str, bytes | None] | None = None) -> list[str]:
    """The paths that building takes, beside the Dockerfile itself; None in `more` is a link."""
    commit = {**COMMIT, **(more or {}), file: text.encode()}
    found = context_files(file, commit.get, commit)
    assert found[file] == text.encode()
    assert all(data == (commit[path] or b"") for path, data in found.items())
    return sorted(path for path in found if path != file)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM a", []),
        ("FROM a\nCOPY requirements.txt /", ["requirements.txt"]),
        ("FROM a\nCOPY ./src/../src /x", ["src/a.py", "src/b/c.py"]),
        ("FROM a\nCOPY /src/b /x", ["src/b/c.py"]),
        ("FROM a\nCOPY *.txt none*.lock /x", ["requirements.txt"]),
        ("FROM a\nCOPY src/[^b].py /x", ["src/a.py"]),
        ("FROM a\nRUN --mount=type=bind,source=src/a.py,target=/a true", ["src/a.py"]),
    ],
)
def test_only_what_is_named(text: str, wanted: list[str]) -> None:
    """Sources are relative to the folder of the Dockerfile, with or without a slash in front, with wildcards."""
    assert context("Dockerfile", text) == wanted


@pytest.mark.parametrize("text", ["FROM a\nCOPY . /x", "FROM a\nCOPY $A /x", "FROM a\nCOPY / /x"])
def test_all_of_it(text: str) -> None:
    """Where all is taken, or it cannot be told what is, all of the folder is there."""
    assert context("Dockerfile", text) == sorted(COMMIT)
    assert context("docker/Dockerfile", text) == [path for path in sorted(COMMIT) if path.startswith("docker/")]


def test_a_link_may_lead_anywhere() -> None:
    """Where a link is taken, or leads to what is taken, all of the folder is there, links among it."""
    for source in ("src", "link/a.py", "link"):
        more = {"src/to": None, "link": None}
        assert context("Dockerfile", f"FROM a\nCOPY {source} /x", more) == sorted({*COMMIT, *more})
    assert context("Dockerfile", "FROM a\nCOPY README.md /x", {"link": None}) == ["README.md"]


def test_what_is_ignored_is_not_there() -> None:
    """An ignore file of the Dockerfile's own goes before the folder's; what is taken is still narrowed."""
    more = {"docker/.dockerignore": b"data\n"}
    assert context("docker/Dockerfile", "FROM a\nCOPY . /x", more) == ["docker/.dockerignore", "docker/app/x"]
    own = {**more, "docker/Dockerfile.dockerignore": b"**/*.bin\n*ignore\n"}
    assert context("docker/Dockerfile", "FROM a\nCOPY . /x", own) == ["docker/app/x", "docker/data/small.txt"]
    assert context("docker/Dockerfile", "FROM a\nCOPY data /x", own) == ["docker/data/small.txt"]


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "Dockerfile",
            "FROM a\n\nCOPY modle /x",
            "Dockerfile:3: COPY takes modle, which the commit does not have: commit",
        ),
        (
            "docker/Dockerfile",
            "FROM a\nADD src /x",
            "docker/Dockerfile:2: ADD takes src, which is not below docker/, .* move",
        ),
        (
            "docker/Dockerfile",
            "FROM a\nCOPY z /x",
            "docker/Dockerfile:2: COPY takes z, which is not below .*: commit it",
        ),
        ("docker/Dockerfile", "FROM a\nCOPY ../src /x", "which is not below docker/"),
        ("docker/Dockerfile", "FROM a\nCOPY ignored /x", "which .dockerignore leaves out"),
        ("docker/Dockerfile", "RUN true", "docker/Dockerfile has no FROM"),
    ],
)
def test_what_is_missing_is_said(file: str, text: str, sentence: str) -> None:
    """With the line that names it, and what is in the way."""
    with pytest.raises(SourceError, match=sentence):
        context(file, text, {"docker/.dockerignore": b"/ignored\n", "docker/ignored": b""})


def test_a_missing_dockerfile_is_said() -> None:
    """As any file that the pipeline names."""
    with pytest.raises(SourceError, match="runtime names Dockerfile, which the commit does not have"):
        context_files("Dockerfile", NOTHING.get, [])


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("", ["a.md", "b/a.md", "b/c/d.txt", "e"]),
        ("# a.md\n\n  \n.\n", ["a.md", "b/a.md", "b/c/d.txt", "e"]),
        ("*.md", ["b/a.md", "b/c/d.txt", "e"]),
        ("**/*.md", ["b/c/d.txt", "e"]),
        ("b", ["a.md", "e"]),
        ("/b/", ["a.md", "e"]),
        ("b/c/**", ["a.md", "b/a.md", "e"]),
        ("*\n!b/c", ["b/c/d.txt"]),
        ("*\n!b\nb/a.*", ["b/c/d.txt"]),
        ("./b/../e", ["a.md", "b/a.md", "b/c/d.txt"]),
        ("[^e]\n?.md\n\\e", []),
        ("[^b]\n?.md", ["b/a.md", "b/c/d.txt"]),
        ("  a.md \n! a.md", ["a.md", "b/a.md", "b/c/d.txt", "e"]),
    ],
)
def test_rules_of_ignore_files(lines: str, left: list[str]) -> None:
    """The last line that names a path or a folder of it counts."""
    assert list(unignored(".dockerignore", lines.encode(), ["a.md", "b/a.md", "b/c/d.txt", "e"])) == left


def test_an_ignore_file_that_is_no_text() -> None:
    """It is said by its name."""
    with pytest.raises(SourceError, match=r"docker/.dockerignore is not UTF-8 text"):
        context("docker/Dockerfile", "FROM a\nCOPY . /x", {"docker/.dockerignore": b"\xff"})


RULES = st.lists(st.text(alphabet="ab*/?!.[^]\\# ", max_size=6), max_size=6)
PATHS = st.lists(st.from_regex(r"[ab]{1,2}(/[ab]{1,2}){0,2}", fullmatch=True), max_size=6, unique=True)


@given(RULES, PATHS)
def test_any_ignore_file_is_read(rules: list[str], paths: list[str]) -> None:
    """It leaves some of the paths, in their order; and none where a last line says so."""
    left = list(unignored(".dockerignore", "\n".join(rules).encode(), paths))
    assert left == [path for path in paths if path in left]
    assert list(unignored(".dockerignore", "\n".join([*rules, "*"]).encode(), paths)) == []
