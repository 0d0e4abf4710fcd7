"""Path and branch patterns."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.patterns import any_of, branch_matches, has_wildcard, matches, overlaps

NAMES = [
    ("src", "src", True),
    ("src", "src/a/b.py", True),
    ("src/", "src/a.py", True),
    ("src/", "src", False),
    ("src", "srcs/a.py", False),
    ("a.txt", "a.txt", True),
    ("a.txt", "b/a.txt", False),
    (".", "any/thing", True),
    ("*.py", "a.py", True),
    ("*.py", "b/a.py", False),
    ("src/*", "src/a/b", True),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("**", "a/b/c", True),
    ("**/*.py", "a.py", True),
    ("**/*.py", "x/y/a.py", True),
    ("src/**/test_*.py", "src/test_a.py", True),
    ("src/**/test_*.py", "src/x/y/test_a.py", True),
    ("src/**/test_*.py", "srcx/test_a.py", False),
    ("src/**", "src/x/y", True),
    ("src/**", "src", False),
    ("**/a/**/b", "x/a/y/a/z/b", True),
    ("**/a/**/b", "x/y/b", False),
    ("[ab].txt", "b.txt", True),
    ("[!ab].txt", "b.txt", False),
    ("[!ab].txt", "c.txt", True),
    ("[a-c].txt", "b.txt", True),
    ("[z-a].txt", "b.txt", False),
    ("[!].txt", "[!].txt", True),
    ("[", "[", True),
    ("a*b*c", "axbxbxc", True),
    ("a*b*c", "axb/xc", False),
    ("a.b", "axb", False),
    ("[--x]", "x", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), NAMES)
def test_matches(pattern: str, path: str, expected: bool) -> None:
    """A pattern names the paths that the reference says it names."""
    assert matches(pattern, path) is expected


_WORDS = st.text(alphabet="ab/.*", max_size=6)


@given(st.lists(_WORDS, max_size=3), _WORDS.filter(bool))
def test_any_of_many_is_each_of_them(patterns: list[str], path: str) -> None:
    """The function for many paths says what `matches` says of each pattern."""
    assert any_of(patterns)(path) is any(matches(pattern, path) for pattern in patterns)


OVERLAPS = [
    ("data/", "data/train.csv", True),
    ("data", "data/", True),
    ("data/", "model/", False),
    ("data/a.csv", "data/b.csv", False),
    ("models/*.pt", "models/*.json", False),
    ("models/*.pt", "models/best.pt", True),
    ("models/*.pt", "models/best.json", False),
    ("models/a*", "models/b*", False),
    (".", "anything", True),
    ("out/**/*.pt", "out/x/y", True),
    ("**", "anything", True),
    ("src/*", "src", True),
]


@pytest.mark.parametrize(("pattern", "other", "expected"), OVERLAPS)
def test_overlaps(pattern: str, other: str, expected: bool) -> None:
    """Two patterns overlap where a path of both can exist, whichever comes first."""
    assert overlaps(pattern, other) is expected
    assert overlaps(other, pattern) is expected


_PART = st.one_of(st.sampled_from(["a", "b", "ab", "**", "*", "a*", "*b", "?", "[ab]", "[!a]b"]), st.text("ab*?[]!-"))
PATTERN = st.lists(_PART.filter(lambda p: p == "**" or ("**" not in p and p)), min_size=1, max_size=4).map("/".join)
PATH = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)


@settings(deadline=None)
@given(PATTERN, PATTERN, PATH)
def test_common_path_means_overlap(pattern: str, other: str, path: str) -> None:
    """Patterns that both name some path always overlap, so that no need is missed."""
    assert not (matches(pattern, path) and matches(other, path)) or overlaps(pattern, other)


@settings(deadline=None)
@given(PATTERN, PATH)
def test_below_follows(pattern: str, path: str) -> None:
    """What a pattern names, it names with all that lies below it."""
    assert not matches(pattern, path) or matches(pattern, f"{path}/below")


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_is_a_pattern(pattern: str, path: str) -> None:
    """No pattern raises, whatever it holds."""
    assert matches(pattern, path) in {True, False}
    assert overlaps(pattern, path) in {True, False}


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("*a" * 200 + "b", "a" * 4000), ("*a*" * 100 + "b", "a" * 4000), ("**/a/" * 100 + "b", "a/" * 2000 + "c")],
)
def test_hostile_patterns_are_quick(pattern: str, path: str) -> None:
    """Many wildcards cost no exponential time on a long path."""
    begun = time.process_time()
    assert not matches(pattern, path)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("pattern", "branch", "expected"),
    [
        ("main", "main", True),
        ("main", "maintenance", False),
        ("main", "main/x", False),
        ("release/*", "release/1.0", True),
        ("release/*", "release/1/0", False),
        ("release/**", "release/1/0", True),
        ("**", "feature/x/y", True),
        ("v[0-9]*", "v1.2", True),
    ],
)
def test_branch_matches(pattern: str, branch: str, expected: bool) -> None:
    """A branch pattern stays within a slash by `*` and crosses by `**`, and names no branch below another."""
    assert branch_matches(pattern, branch) is expected


def test_wildcards_are_seen() -> None:
    """A plain path has no wildcard; each sign is one."""
    assert [has_wildcard(p) for p in ("a/b", "a*", "a?", "[a]")] == [False, True, True, True]
