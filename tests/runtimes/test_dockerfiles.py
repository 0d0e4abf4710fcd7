"""Dockerfiles are read as docker's own builder reads them, and pinned without another change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtimes.dockerfiles import Dockerfile, DockerfileError, Upon, bases, pinned, read, taken, words


def dockerfile(text: str) -> Dockerfile:
    return read("Dockerfile", text.encode())


def upon(text: str) -> list[tuple[str, str | None, int]]:
    return [(one.image, one.platform, one.line) for one in bases(dockerfile(text), "amd64")]


# --- instructions --------------------------------------------------------------------------------------------------


def test_instructions_have_their_lines() -> None:
    """Comments and empty lines count, also within a continuation; names are in capitals; CRLF and a BOM are nothing."""
    text = "\ufeff# first\r\n\r\nfrom a\r\nRUN one \\\r\n  # between\r\n\r\n  two\r\nCMD x"
    found = [(i.line, i.end, i.name, i.text) for i in dockerfile(text).instructions]
    assert found == [(3, 4, "FROM", "a"), (4, 8, "RUN", "one   two"), (8, 9, "CMD", "x")]


def test_the_escape_may_be_a_backtick() -> None:
    """The directive counts on the first lines only; with it a backslash is a plain sign."""
    assert [i.text for i in dockerfile("# escape=`\nFROM a\nRUN c:\\\nRUN a `\nb").instructions] == ["a", "c:\\", "a b"]
    assert [i.text for i in dockerfile("# x\n# escape=`\nFROM a\nRUN a \\\nb").instructions] == ["a", "a b"]


def test_here_documents_are_no_instructions() -> None:
    """What stands in one is not looked at, also with quotes, with tabs, and where there are two."""
    text = (
        "FROM a\nRUN <<EOF\nFROM b\nEOF\nCOPY <<'ONE' <<-\"TWO\" /x/\nFROM c\nONE\n\tFROM d\n\tTWO\nRUN cat <<<EOF\n"
        "RUN echo $(( 1 << 3 ))\nFROM e\n"
    )
    found = dockerfile(text)
    assert [i.name for i in found.instructions] == ["FROM", "RUN", "COPY", "RUN", "RUN", "FROM"]
    assert upon(text) == [("a", None, 1), ("e", None, 12)]
    assert taken(found) == []


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "Dockerfile has no FROM"),
        (b"# FROM a\n", "Dockerfile has no FROM"),
        (b"\xff\xfe", "Dockerfile is not UTF-8"),
        (b"FROM a\nRUN <<EOF\nx\n", "Dockerfile:2: the here-document EOF never ends"),
    ],
)
def test_what_is_no_dockerfile_is_refused(data: bytes, sentence: str) -> None:
    """One sentence says where and what."""
    with pytest.raises(DockerfileError, match=sentence):
        read("Dockerfile", data)


@given(st.text(alphabet="FROMCPYRUN abc\\`\"'#<EO\n\t$-=/", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever a repository holds, instructions follow one another and none has another's lines."""
    try:
        found = dockerfile(f"FROM a\n{text}")
    except DockerfileError:
        return
    end = 1
    for instruction in found.instructions:
        assert end <= instruction.line < instruction.body_line <= instruction.end <= len(found.lines) + 1
        end = instruction.end
    taken(found)


@given(st.lists(st.text(alphabet="ab/.-", min_size=1, max_size=5), max_size=6))
def test_words_without_signs_are_words(parts: list[str]) -> None:
    """Spaces divide, and nothing else does."""
    assert words("  ".join(parts)) == parts


def test_quotes_and_escapes_hold_words_together() -> None:
    """They stay in the word; a quote that never ends takes the rest."""
    assert words('a\\ b \'c d\' "e \\" f" g"h i') == ["a\\ b", "'c d'", '"e \\" f"', 'g"h i']


# --- what it builds upon -------------------------------------------------------------------------------------------


def test_images_from_outside() -> None:
    """Of FROM, COPY --from and RUN --mount; stages, their numbers and scratch are none."""
    text = (
        "FROM --platform=linux/arm64 a:1 AS One\nFROM one as two\nFROM scratch\nCOPY --from=TWO /x /x\n"
        "COPY --from=0 /x /x\nCOPY --chown=1:1 --from=ghcr.io/b/c:2 /x /x\n"
        "RUN --mount=type=cache,target=/r --mount=type=bind,from=d,source=/x,target=/y true\nFROM a:1\n"
    )
    assert upon(text) == [("a:1", "linux/arm64", 1), ("ghcr.io/b/c:2", None, 6), ("d", None, 7), ("a:1", None, 8)]


def test_arguments_before_from() -> None:
    """They have defaults, may name each other, and know the machine's platform."""
    text = (
        'ARG TAG=3.11 SLIM="-slim"\nARG NAME=python:${TAG}$SLIM\nARG EMPTY\nFROM $NAME\n'
        "ARG TAG=9\nFROM --platform=$TARGETPLATFORM x:${EMPTY:-1}${TAG:+-t}\nFROM y:${TAG}-$TARGETARCH\n"
    )
    assert upon(text) == [("python:3.11-slim", None, 4), ("x:1-t", "linux/amd64", 6), ("y:3.11-amd64", None, 7)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ARG A\nFROM x:$A", "Dockerfile:2: which image FROM x:\\$A means"),
        ("FROM $NONE", "Dockerfile:1: which image"),
        ("ARG A\nFROM ${A:?no}", "Dockerfile:2: which image"),
        ("FROM --platform=$P a", "Dockerfile:1: which platform \\$P means"),
        ("FROM a b", "Dockerfile:1: FROM a b makes no sense"),
        ("FROM", "Dockerfile:1: FROM  ?makes no sense"),
    ],
)
def test_a_from_that_cannot_be_told(text: str, sentence: str) -> None:
    """One sentence says where and what to do."""
    with pytest.raises(DockerfileError, match=sentence):
        bases(dockerfile(text), "amd64")


def test_pinned_text_keeps_its_lines() -> None:
    """Only the images change; a FROM over many lines stands on its first."""
    text = (
        "ARG T=1\nFROM --platform=linux/amd64 \\\n  a:$T \\\n  AS one\nCOPY --from=b:2 x \\\n  y\n"
        "RUN --mount=from=b:2,target=/b echo b:2 <<EOF\nfrom=b:2\nEOF\nFROM one\nFROM scratch"
    )
    images: dict[tuple[str, str | None], str] = {("a:1", "linux/amd64"): "sha256:aa", ("b:2", None): "b@sha256:bb"}
    assert pinned(dockerfile(text), "amd64", images) == (
        "ARG T=1\nFROM --platform=linux/amd64 sha256:aa AS one\n\n\nCOPY --from=b@sha256:bb x \\\n  y\n"
        "RUN --mount=from=b@sha256:bb,target=/b echo b:2 <<EOF\nfrom=b:2\nEOF\nFROM one\nFROM scratch"
    )


NAMES = st.sampled_from(["a", "b:1", "ghcr.io/c/d:2", "one", "two"])
LINES = st.one_of(
    st.builds("FROM {}".format, NAMES),
    st.builds("FROM {} AS {}".format, NAMES, st.sampled_from(["one", "two"])),
    st.builds("COPY --from={} x y".format, NAMES),
    st.builds("RUN --mount=type=bind,from={},target=/x true".format, NAMES),
    st.just("RUN true"),
)


@given(st.lists(LINES, max_size=8))
def test_a_pinned_dockerfile_has_only_pinned_images(lines: list[str]) -> None:
    """Whatever is built upon in the text is built upon by its pin in the pinned one, on the same lines."""
    found = dockerfile("\n".join(["FROM a", *lines]))
    before = bases(found, "amd64")
    pins = {(one.image, one.platform): f"x@sha256:{number:064}" for number, one in enumerate(before)}
    after = bases(dockerfile(pinned(found, "amd64", pins)), "amd64")
    assert after == tuple(Upon(pins[one.image, one.platform], one.platform, one.line) for one in before)


# --- what it takes of its context ----------------------------------------------------------------------------------


def paths(text: str) -> list[str] | None:
    found = taken(dockerfile(f"FROM a\n{text}"))
    return None if found is None else [one.path for one in found]


def test_what_is_taken() -> None:
    """The sources of COPY and ADD and of bind mounts; not those of other stages, not addresses, not here-documents."""
    text = (
        'COPY --chown=1 a b/ /x/\nCOPY ["c d", "/x"]\nADD https://example.org/e git@host:f g /x\n'
        "COPY --from=0 h /x\nRUN --mount=type=bind,source=i,target=/i --mount=target=/j,type=cache true\n"
        "ADD --link 'k' /x\nRUN --mount=src=l,target=/l true\nONBUILD COPY m /m\nCOPY <<EOF n /x\nEOF\n"
    )
    assert paths(text) == ["a", "b/", "c d", "g", "i", "k", "l", "n"]


@pytest.mark.parametrize(
    "text", ["COPY $WHAT /x", "COPY a\\ b /x", 'COPY "a b"c /x', "COPY a", 'COPY ["a, "b"]', "COPY", "COPY [1"]
)
def test_what_cannot_be_told_is_all(text: str) -> None:
    """Variables, escapes and what makes no sense are left to the engine, which gets the whole context."""
    assert paths(text) is None


def test_a_mount_without_a_source_is_the_whole_context() -> None:
    """Its source is the root of the context."""
    assert paths("RUN --mount=type=bind,target=/x true") == [""]
