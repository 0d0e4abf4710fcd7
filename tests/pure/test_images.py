"""Names of container images are taken apart as the engines take them, and refused with what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.images import check_image, parse_image

DIGEST = f"sha256:{'1a' * 32}"


@pytest.mark.parametrize(
    ("text", "reference", "full", "host"),
    [
        ("python", "python:latest", "docker.io/library/python", None),
        ("python:3.11-slim", "python:3.11-slim", "docker.io/library/python", None),
        ("pytorch/pytorch:2.4", "pytorch/pytorch:2.4", "docker.io/pytorch/pytorch", None),
        (f"python@{DIGEST}", f"python@{DIGEST}", "docker.io/library/python", None),
        (f"python:3.11@{DIGEST}", f"python@{DIGEST}", "docker.io/library/python", None),
        ("ghcr.io/team/base:1", "ghcr.io/team/base:1", "ghcr.io/team/base", "ghcr.io"),
        ("localhost:5000/base", "localhost:5000/base:latest", "localhost:5000/base", "localhost:5000"),
        ("registry:5000/base:1", "registry:5000/base:1", "registry:5000/base", "registry:5000"),
        (
            "Registry.example.org/a__b/c-d:V1",
            "Registry.example.org/a__b/c-d:V1",
            "Registry.example.org/a__b/c-d",
            "Registry.example.org",
        ),
        ("[::1]:5000/base", "[::1]:5000/base:latest", "[::1]:5000/base", "[::1]:5000"),
    ],
)
def test_a_name_has_parts(text: str, reference: str, full: str, host: str | None) -> None:
    """A host is known by its dot, its port or as localhost; a name without one is of Docker Hub."""
    name = parse_image(text)
    assert (name.reference, name.full, name.host) == (reference, full, host)
    assert name.pinned == ("@" in text)
    assert check_image(text) == text


def test_only_localhost_is_no_registry() -> None:
    """A name of localhost without a port is one of this machine alone."""
    assert parse_image("localhost/base:1").is_local
    assert not parse_image("localhost:5000/base:1").is_local
    assert not parse_image("base").is_local


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no name of an image"),
        ("a b", "no name of an image"),
        ("python:", "no name of an image"),
        ("-python", "no name of an image"),
        ("--privileged", "no name of an image"),
        ("a//b", "no name of an image"),
        ("Python:3.11", "lower case"),
        ("ghcr.io/Team/base", "lower case"),
        ("docker://python:3.11", "without docker://"),
        ("python:${TAG}", "before any is known"),
        ("python@sha256:1a2b", "64 hexadecimal digits"),
        (DIGEST, "ID"),
        ("1a" * 32, "ID"),
        ("a" * 256, "no name of an image"),
    ],
)
def test_what_is_no_name_is_refused(text: str, sentence: str) -> None:
    """Each mistake that people make has its own words."""
    with pytest.raises(ValueError, match=sentence):
        check_image(text)


def refusal(text: str) -> str | None:
    """The sentence by which a text is refused, or None."""
    try:
        parse_image(text)
    except ValueError as error:
        return str(error)
    return None


@given(st.text(max_size=40))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Whatever stands there, it is a name without spaces and options, or a sentence on one line."""
    refused = refusal(text)
    if refused is not None:
        assert "\n" not in refused
        return
    name = parse_image(text)
    assert not name.reference.startswith("-")
    assert not any(character.isspace() for character in name.reference)
    assert parse_image(name.reference).reference == name.reference
