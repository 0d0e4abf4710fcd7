"""Requirements files and locks as text."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import SourceError
from penstock.runtimes import requirements


def follow(**files: str) -> dict[str, bytes]:
    commit = {name.replace("__", "/") + ".txt": text.encode() for name, text in files.items()}
    return requirements.follow("main.txt", commit.get)


def test_includes_and_constraints_are_followed() -> None:
    """`-r` and `-c` in all their spellings are followed, relative to the file they stand in, cycles included."""
    files = follow(
        main="-r sub/a.txt\n--constraint=c.txt  # why\nsix\n",
        sub__a="-r../b.txt\n--requirement c.txt\n",
        b="-r main.txt\n",
        c="six<2\n",
        sub__c="",
        other="",
    )
    assert set(files) == {"main.txt", "sub/a.txt", "c.txt", "b.txt", "sub/c.txt"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n-r none.txt", "main.txt:2 names none.txt, which the commit does not have: commit it, or correct the name"),
        ("-r ../up.txt", "main.txt:1: ../up.txt lies outside the repository: move the file into it"),
        ("-c /etc/c.txt", "main.txt:1: /etc/c.txt lies outside the repository: move the file into it"),
        ("-r https://e.org/r.txt", "main.txt:1: https://e.org/r.txt is not part of the commit: copy the file into"),
    ],
)
def test_an_include_that_is_not_of_the_commit(text: str, sentence: str) -> None:
    """The place of the include, what is wrong with it and what to do."""
    with pytest.raises(SourceError) as caught:
        follow(main=text)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "text",
    [
        "-e .",
        "--editable=git+https://e.org/x",
        ".",
        "./lib",
        "../lib[extra] ; python_version > '3'",
        "/srv/lib",
        "lib/",
        "file:///srv/lib",
        "name @ ./lib",
        "name@file:///srv/lib",
        "wheels/name-1.0-py3-none-any.whl",
        "name-1.0.tar.gz",
        "-f wheels",
        "--find-links=./wheels",
        "~/lib",
    ],
)
def test_a_local_path_is_refused(text: str) -> None:
    """The project and its parts are never installed: their folders are named under runtime.path."""
    with pytest.raises(SourceError, match=r"^main.txt:3: .* is a local path, .* under runtime\.path$"):
        follow(main=f"six\n# a comment\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "six==1.17.0 ; python_version > '3' # x/y",
        "torch==2.9 --hash=sha256:00",
        "name @ https://e.org/a/name-1.0-py3-none-any.whl",
        "https://e.org/name-1.0.tar.gz",
        "git+https://e.org/name@main",
        "name[extra] @ git+ssh://git@e.org/name.git@main",
        "--extra-index-url https://e.org/simple",
        "-f https://e.org/links.html",
        "--pre",
        'six --config-settings="--a=/b"',
        "a.dotted-name>=1,<2",
    ],
)
def test_what_is_published_is_taken(text: str) -> None:
    """Names, addresses and options are left to uv."""
    assert follow(main=text)


def test_a_file_that_is_no_text() -> None:
    """A file in another encoding is named."""
    with pytest.raises(SourceError, match=r"^r.txt is not UTF-8 text: save it as UTF-8$"):
        requirements.follow("r.txt", lambda _: "six".encode("utf-16"))


def test_what_a_lock_lacks() -> None:
    """Each requirement has a hash or a full commit; the first that has neither is named by its line."""
    lock = (
        b"--index-url https://e.org\n# six\nsix==1 \\\n  --hash=sha256:00\nx @ git+https://e.org/x@"
        + b"0a" * 20
        + b"\n"
    )
    assert requirements.unhashed("l", lock) is None
    line = requirements.unhashed("l", lock + b"\niniconfig==2 ; x == 'y'\n")
    assert line is not None
    assert (line.place, line.text) == ("l:7", "iniconfig==2 ; x == 'y'")
    assert requirements.unhashed("l", b"x @ git+https://e.org/x@main\n") is not None


def test_addresses_in_one_spelling() -> None:
    """The index options that files name are given once each, in their long form."""
    files = {"a": b"-i https://a\nsix\n--extra-index-url=https://b\n", "b": b"-f https://c\n-i  https://a\n"}
    assert requirements.addresses(files, ["a", "b"]) == [
        "--index-url https://a",
        "--extra-index-url https://b",
        "--find-links https://c",
    ]


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No content raises anything but the one sentence of a SourceError."""
    with contextlib.suppress(SourceError):
        assert set(requirements.follow("r.txt", {"r.txt": text.encode()}.get)) == {"r.txt"}
