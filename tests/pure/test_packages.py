"""The package's tree, its manifest, and the lineage beside it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts import Digest, File, Link, Tree, digest_of_bytes
from penstock.errors import UntrustworthyError
from penstock.packages import Manifest, assemble, lineage, manifest_of, served_files
from penstock.pipelines import Pipeline


def pipeline(**rest: Any) -> Pipeline:
    return Pipeline.model_validate({"name": "digits", "steps": {"a": {"run": "true"}}, **rest})


def file(text: str) -> File:
    return File(digest_of_bytes(text.encode()), len(text))


MANIFEST = Manifest("digits", "serve", "/health", 120.0, "3.11", "a" * 64, "b" * 64, ("src",), ("model/",))
PATHS = st.text("abc/", min_size=1, max_size=8).filter(lambda p: all(p.split("/")))


@given(
    st.builds(
        Manifest,
        name=st.text(),
        serve=st.none() | st.text(),
        health=st.text(),
        start_timeout=st.floats(0, 1e6),
        python=st.none() | st.text(),
        lock=st.none() | st.text(),
        environment=st.none() | st.text(),
        path=st.lists(st.text()).map(tuple),
        model=st.lists(st.text()).map(tuple),
    )
)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    """Encoding and decoding give the same manifest, and the same bytes again."""
    data = manifest.encode()
    assert Manifest.decode(data) == manifest
    assert Manifest.decode(data).encode() == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        MANIFEST.encode()[:-9],
        json.dumps({**json.loads(MANIFEST.encode()), "more": 1}).encode(),
        json.dumps({**json.loads(MANIFEST.encode()), "path": 3}).encode(),
    ],
)
def test_a_damaged_manifest_is_refused(data: bytes) -> None:
    """Bytes that are no manifest give one sentence that says what to do."""
    with pytest.raises(UntrustworthyError, match="the package's manifest is damaged: build the version again"):
        Manifest.decode(data)


def test_a_manifest_says_how_to_serve() -> None:
    """The manifest takes serve command, health, timeout and paths from the file, and digests from the run."""
    made = pipeline(
        runtime={"python": "3.11", "requirements": "r.txt", "path": ["src"]},
        package={"model": ["model/"], "code": ["src/"], "serve": "serve", "start_timeout": "2m"},
    )
    assert manifest_of(made, Digest("a" * 64), Digest("b" * 64)) == MANIFEST


def test_a_manifest_of_the_smallest_package() -> None:
    """Without runtime, model or serve command these are absent, and the health path has its default."""
    made = manifest_of(pipeline(package={"code": ["src/"]}), None, None)
    assert made == Manifest("digits", None, "/health", 120.0, None, None, None, (), ())


@given(st.dictionaries(PATHS, st.text(max_size=3).map(file) | st.just(Link("elsewhere")), max_size=4), st.booleans())
def test_what_is_served_is_what_was_put_in(entries: dict[str, File | Link], locked: bool) -> None:
    """The files come out at the paths that they had; manifest and lock stand beside them, whatever the files' names."""
    try:
        files = Tree(entries)
    except UntrustworthyError:
        return
    package = assemble(files, file("manifest"), file("lock") if locked else None)
    assert served_files(package) == files
    beside = {p for p in package if not p.startswith("files/")}
    assert beside == {"manifest.json", "penstock.lock"} if locked else beside == {"manifest.json"}


def test_a_file_cannot_stand_for_the_manifest() -> None:
    """A repository's own manifest.json is served, and is not the package's."""
    own = Tree({"manifest.json": file("the repository's"), "penstock.lock": file("its own")})
    package = assemble(own, file("the package's"), None)
    assert package.entries["manifest.json"] == file("the package's")
    assert served_files(package) == own
    assert "penstock.lock" not in package


def test_the_digest_covers_every_part() -> None:
    """Another file, manifest or lock is another package."""
    made = [
        assemble(Tree({"a": file(a)}), file(manifest), lock)
        for a in "12"
        for manifest in "34"
        for lock in (None, file("5"), file("6"))
    ]
    assert len({tree.digest for tree in made}) == len(made)


def test_lineage_says_where_a_package_comes_from() -> None:
    """Lineage is plain values: commit, digests of inputs and files, lock, metrics, hardware, variables."""
    package = assemble(Tree({"model/m": file("m"), "link": Link("model/m")}), file("manifest"), None)
    found = lineage(
        commit={"sha": "c" * 40},
        version="0.1",
        package=package,
        manifest=MANIFEST,
        inputs={"train": "d" * 64},
        metrics={"train.accuracy": 0.9},
        hardware={"cpus": 2},
        variables={"EPOCHS": "4"},
    )
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "schema": 1,
        "version": "0.1",
        "commit": {"sha": "c" * 40},
        "package": package.digest,
        "files": {"files/model/m": file("m").digest, "manifest.json": file("manifest").digest},
        "inputs": {"train": "d" * 64},
        "environment": "b" * 64,
        "lock": "a" * 64,
        "metrics": {"train.accuracy": 0.9},
        "hardware": {"cpus": 2},
        "variables": {"EPOCHS": "4"},
    }
