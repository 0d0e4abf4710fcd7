"""Coverage of files and of the lines of a change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import coverages
from penstock.coverages import Coverage, FileCoverage, coverage_of_change, parse_coverage
from penstock.errors import ReportError

LINES = st.frozensets(st.integers(1, 30))


def measured(*paths: str, roots: tuple[str, ...] = ()) -> Coverage:
    return Coverage({path: FileCoverage(frozenset({1, 2, 5}), frozenset({3, 9})) for path in paths}, roots)


def test_the_rate_is_counted_from_the_lines() -> None:
    """Covered over covered and missed, over all files; none where there is no line."""
    coverage = measured("a.py", "b.py")
    assert (coverage.covered, coverage.missed, coverage.rate) == (6, 4, 0.6)
    assert measured().rate is None


@pytest.mark.parametrize(
    ("written", "roots", "path"),
    [
        ("src/a.py", (), "src/a.py"),
        ("./src/a.py", (), "src/a.py"),
        ("/builds/7/src/a.py", (), "src/a.py"),
        ("a.py", ("/builds/7/src",), "src/a.py"),
        ("a.py", ("/builds/7/src/",), "src/a.py"),
        ("digits/a.py", (), "src/digits/a.py"),
        ("digits\\a.cs", ("C:\\src\\",), "src/digits/a.cs"),
    ],
)
def test_a_file_is_found_by_its_path_in_the_repository(written: str, roots: tuple[str, ...], path: str) -> None:
    """Reports write paths from the repository, the root of the disk, or a folder of their own."""
    coverage = measured(written, "other.py", roots=roots)
    assert coverage.of(path) is coverage.files[written]


def test_the_nearest_of_several_files_is_meant() -> None:
    """A file of the same name in another folder is not taken; the same path is always preferred."""
    coverage = measured("a.py", "digits/a.py", "src/digits/xa.py")
    assert coverage.of("src/digits/a.py") is coverage.files["digits/a.py"]
    assert coverage.of("a.py") is coverage.files["a.py"]
    assert coverage.of("src/digits/b.py") is None
    assert coverage.of("ia.py") is None
    assert measured("a.py", roots=("/builds/7/src",)).of("tests/a.py") is None


def test_changed_lines_are_covered_or_missed_or_hold_no_code() -> None:
    """Lines outside of the change and without code count nowhere; a file that was not measured is named."""
    changed = {"src/a.py": [range(1, 4), range(9, 10)], "b.py": [range(1, 100)], "README.md": [range(1, 5)]}
    found = coverage_of_change(measured("a.py"), changed)
    assert (found.covered, found.missed) == ({"src/a.py": (1, 2)}, {"src/a.py": (3, 9)})
    assert (found.unmeasured, found.rate) == (("b.py", "README.md"), 0.5)
    assert coverage_of_change(measured("a.py"), {"a.py": [range(6, 8)]}).rate is None


@given(covered=LINES, missed=LINES)
def test_a_change_of_everything_has_the_rate_of_the_file(covered: frozenset[int], missed: frozenset[int]) -> None:
    """Both are counted alike."""
    coverage = Coverage({"a.py": FileCoverage(covered, missed - covered)})
    assert coverage_of_change(coverage, {"a.py": [range(1, 31)]}).rate == coverage.rate


def test_deep_and_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements nested without end, and files that are too large, are one sentence."""
    with pytest.raises(ReportError, match=r"c\.xml:1: elements are nested more than 50 deep"):
        parse_coverage(b"<coverage>" + b"<packages>" * 60, "c.xml")
    monkeypatch.setattr(coverages, "MAX_BYTES", 3)
    with pytest.raises(ReportError, match=r"c\.info: 0 MiB are too much"):
        parse_coverage(b"TN:x\n", "c.info")


@given(data=st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Whatever is in the file, it is read or refused."""
    try:
        parse_coverage(data, "c.xml")
    except ReportError as error:
        assert str(error).startswith("c.xml:")  # noqa: PT017 (most bytes raise, some do not)
