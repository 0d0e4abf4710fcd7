"""Digests, trees and patterns."""

from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts import Digest, File, Link, Tree, digest_of, digest_of_bytes, is_digest
from penstock.errors import UntrustworthyError
from penstock.patterns import matches, overlaps

ONE = digest_of_bytes(b"1")
TWO = digest_of_bytes(b"2")

DIGESTS = st.binary(max_size=4).map(digest_of_bytes)
ENTRIES = st.one_of(
    st.builds(File, DIGESTS, st.integers(0, 2**60), st.booleans()), st.builds(Link, st.text(min_size=1, max_size=8))
)
# Names carry a suffix on the last part only, so that no generated path is a folder of another.
PARTS = st.text(st.characters(blacklist_characters="/\0."), min_size=1, max_size=4)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".f")
TREES = st.dictionaries(PATHS, ENTRIES, max_size=8).map(Tree)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


# --- digests -------------------------------------------------------------------------------------------------------


def test_a_digest_is_blake3_in_hexadecimal() -> None:
    """Bytes are named by 64 lower-case hexadecimal digits of BLAKE3, and nothing else passes for a digest."""
    assert digest_of_bytes(b"abc") == blake3(b"abc").hexdigest()
    assert is_digest(ONE)
    assert not any(map(is_digest, (ONE[:-1], ONE + "0", ONE.upper(), "g" * 64, ONE + "\n", "")))


@given(value=JSON, other=JSON)
def test_equal_values_have_equal_digests_and_others_do_not(value: Any, other: Any) -> None:
    """Two values share a digest exactly if they are the same JSON; `1` and `true` differ."""
    assert (digest_of("t", value) == digest_of("t", other)) == (_typed(value) == _typed(other))


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    return [_typed(inner) for inner in value] if isinstance(value, list) else (type(value), value)


def test_the_tag_and_not_the_order_of_keys_matters() -> None:
    """Values of two kinds never collide; key order, and tuple or list, are no difference."""
    assert digest_of("a", {"x": 1, "y": (2,)}) == digest_of("a", {"y": [2], "x": 1})
    assert digest_of("a", {}) != digest_of("b", {})
    assert digest_of("a", "\udcff") != digest_of("a", "\udcfe")


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_not_json_has_no_digest(value: Any) -> None:
    """A value that has no canonical form is a programming error."""
    with pytest.raises(TypeError):
        digest_of("t", value)


def test_numbers_that_are_none_have_no_digest() -> None:
    """NaN and infinity have no JSON form."""
    with pytest.raises(ValueError, match="JSON"):
        digest_of("t", float("nan"))


# --- trees ---------------------------------------------------------------------------------------------------------


@given(tree=TREES)
def test_a_tree_comes_back_from_its_bytes(tree: Tree) -> None:
    """Encoding and decoding give the same tree with the same digest, which is that of its bytes."""
    assert Tree.decode(tree.encode()) == tree
    assert Tree.decode(tree.encode()).digest == tree.digest == digest_of_bytes(tree.encode())


@given(tree=TREES)
def test_the_order_of_entries_is_no_difference(tree: Tree) -> None:
    """A tree built in any order lists its paths sorted and has one digest."""
    turned = Tree(dict(reversed([*tree.entries.items()])))
    assert turned.digest == tree.digest
    assert list(turned) == sorted(tree)


def test_every_part_of_an_entry_is_in_the_digest() -> None:
    """Path, content, size, mode, kind and target each change the digest."""
    trees = [
        Tree(),
        Tree({"a": File(ONE, 1)}),
        Tree({"b": File(ONE, 1)}),
        Tree({"a": File(TWO, 1)}),
        Tree({"a": File(ONE, 2)}),
        Tree({"a": File(ONE, 1, executable=True)}),
        Tree({"a": Link("b")}),
        Tree({"a": Link("c")}),
    ]
    assert len({tree.digest for tree in trees}) == len(trees)


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a\0b"])
def test_a_path_that_leaves_or_is_not_plain_is_refused(path: str) -> None:
    """Absolute, empty, dotted and NUL paths never enter a tree."""
    with pytest.raises(UntrustworthyError, match="refused"):
        Tree({path: File(ONE, 1)})


@pytest.mark.parametrize("entry", [File(ONE, 1), Link("b")])
def test_nothing_lies_below_a_file_or_link(entry: File | Link) -> None:
    """A path cannot be a file or link and a folder at once, however deep the other lies."""
    with pytest.raises(UntrustworthyError, match="at once"):
        Tree({"a": entry, "a-b": File(ONE, 1), "a/b/c": File(ONE, 1)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"tree",
        b"blob\0[]",
        b"tree\0",
        b"tree\0{",
        b"tree\0[1]",
        b'tree\0[["a"]]',
        b'tree\0[["a","l"]]',
        b'tree\0[["a","f","x",1]]',
        b'tree\0[["a","z","' + ONE.encode() + b'",1]]',
        b'tree\0[["a","f","' + ONE.encode() + b'","1"]]',
        b'tree\0[["../a","l","b"]]',
        b'tree\0[[1,"l","b"]]',
        b"tree\0\xff",
    ],
)
def test_bytes_that_are_no_tree_are_refused(data: bytes) -> None:
    """Foreign, cut or invented bytes raise one error, and never something else."""
    with pytest.raises(UntrustworthyError):
        Tree.decode(data)


@given(tree=TREES, other=TREES)
def test_a_merge_holds_both_and_the_other_wins(tree: Tree, other: Tree) -> None:
    """Every path of both is there, with the other's entry where both have one."""
    merged = tree.merge(other)
    assert merged.entries == {**tree.entries, **other.entries}
    assert tree.merge(Tree()) == Tree().merge(tree) == tree


@given(tree=TREES)
def test_a_selection_is_what_the_patterns_match(tree: Tree) -> None:
    """Selecting all, nothing, or one path gives exactly that."""
    assert tree.select(["**"]) == tree
    assert not tree.select([])
    for path in tree:
        assert path in tree
        assert all(matches("*.f", found) for found in tree.select(["*.f"]))


def test_a_tree_knows_its_size_and_contents() -> None:
    """Size and digests are those of the files; links count nothing."""
    tree = Tree({"a": File(ONE, 3), "b": File(TWO, 4), "c": Link("a")})
    assert (tree.size, len(tree), tree.digests()) == (7, 3, {ONE, TWO})
    assert Tree().digests() == set[Digest]()


# --- patterns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("src/", "src/a.py", True),
        ("src/", "src/deep/a.py", True),
        ("src/", "src", False),
        ("src", "src", True),
        ("src", "src/a.py", True),
        ("src", "src2/a.py", False),
        ("src/", "lib/src/a.py", False),
        ("*.csv", "a.csv", True),
        ("*.csv", ".csv", True),
        ("*.csv", "data/a.csv", False),
        ("data/*.csv", "data/a.csv", True),
        ("data/*", "data/deep/a.csv", True),
        ("data/*/", "data/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("**", "x/y", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("v[12]", "v1", True),
        ("v[!12]", "v1", False),
        ("v[!12]", "v3", True),
        ("v[1", "v[1", True),
        ("a.b", "axb", False),
        ("a+(b)", "a+(b)", True),
    ],
)
def test_patterns_name_what_they_should(pattern: str, path: str, *, expected: bool) -> None:
    """Folders name all below, stars stay within a folder, double stars cross, and nothing else is special."""
    assert matches(pattern, path) == expected


@given(path=PATHS.filter(lambda path: not set("*?[") & set(path)))
def test_a_path_names_itself(path: str) -> None:
    """A path without wildcards, read as a pattern, matches itself and what lies below it."""
    assert matches(path, path)
    assert matches(path, f"{path}/below")
    assert matches(f"{path}/", f"{path}/below")


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("data/", "data/a.csv", True),
        ("data", "data/", True),
        ("data/", "database/", False),
        ("a.txt", "b.txt", False),
        ("data/*.csv", "data/", True),
        ("data/*.csv", "model/", False),
        ("**/*.csv", "model/", True),
        ("model/*.pt", "model/*.onnx", False),
    ],
)
def test_overlap_is_mutual_and_never_overlooked(one: str, two: str, *, expected: bool) -> None:
    """Two patterns overlap where a path may have both names, in either order."""
    assert overlaps(one, two) == overlaps(two, one) == expected
