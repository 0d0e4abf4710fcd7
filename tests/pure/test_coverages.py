"""Coverage of files and of the lines of a change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import coverages
from penstock.coverages import (
    Coverage,
    FileCoverage,
    coverage_of_change,
    endings_of,
    measured,
    neglected,
    parse_coverage,
)
from penstock.errors import ReportError

LINES = st.frozensets(st.integers(1, 30))


def report(*paths: str, roots: tuple[str, ...] = ()) -> Coverage:
    return Coverage({path: FileCoverage(frozenset({1, 2, 5}), frozenset({3, 9})) for path in paths}, roots)


def test_the_rate_is_counted_from_the_lines() -> None:
    """Covered over covered and missed, over all files; none where there is no line."""
    coverage = report("a.py", "b.py")
    assert (coverage.covered, coverage.missed, coverage.rate) == (6, 4, 0.6)
    assert report().rate is None


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
    coverage = report(written, "other.py", roots=roots)
    assert coverage.of(path) is coverage.files[written]


def test_the_nearest_of_several_files_is_meant() -> None:
    """A file of the same name in another folder is not taken; the same path is always preferred."""
    coverage = report("a.py", "digits/a.py", "src/digits/xa.py")
    assert coverage.of("src/digits/a.py") is coverage.files["digits/a.py"]
    assert coverage.of("a.py") is coverage.files["a.py"]
    assert coverage.of("src/digits/b.py") is None
    assert coverage.of("ia.py") is None
    assert report("a.py", roots=("/builds/7/src",)).of("tests/a.py") is None


def test_changed_lines_are_covered_or_missed_or_hold_no_code() -> None:
    """Lines outside of the change and without code count nowhere; a file that was not measured is named."""
    changed = {"src/a.py": [range(1, 4), range(9, 10)], "b.py": [range(1, 100)], "README.md": [range(1, 5)]}
    found = coverage_of_change(report("a.py"), changed)
    assert (found.covered, found.missed) == ({"src/a.py": (1, 2)}, {"src/a.py": (3, 9)})
    assert (found.unmeasured, found.rate) == (("b.py", "README.md"), 0.5)
    assert coverage_of_change(report("a.py"), {"a.py": [range(6, 8)]}).rate is None


@given(covered=LINES, missed=LINES)
def test_a_change_of_everything_has_the_rate_of_the_file(covered: frozenset[int], missed: frozenset[int]) -> None:
    """Both are counted alike."""
    coverage = Coverage({"a.py": FileCoverage(covered, missed - covered)})
    assert coverage_of_change(coverage, {"a.py": [range(1, 31)]}).rate == coverage.rate


def test_all_paths_are_found_as_one_is() -> None:
    """With roots, backslashes and files of the same name."""
    coverage = report("digits/a.py", "b\\a.py", "c.py", roots=("/x/src",))
    paths = ["src/digits/a.py", "src/b/a.py", "src/c.py", "tests/c.py", "d.py"]
    assert measured(coverage, paths) == {path: found for path in paths if (found := coverage.of(path)) is not None}
    assert list(measured(coverage, paths)) == paths[:3]


def test_sources_that_the_report_should_know_are_neglected() -> None:
    """Those beside and below what was measured, with the same ending; tests, notes and other folders are nobody's."""
    coverage = report("digits/a.py", "digits/deep/b.py", roots=("/x/src",))
    commit = ["src/digits/a.py", "src/digits/deep/b.py", "src/digits/new.py", "src/digits/more/new.py", "setup.py"]
    commit += ["tests/test_a.py", "src/digits/notes.md", "src/other.py"]
    assert neglected(coverage, commit, commit[2:]) == ("src/digits/new.py", "src/digits/more/new.py")
    assert endings_of(coverage) == {".py"}
    flat = report("a.py", "Makefile", ".hidden")
    assert neglected(flat, ["a.py", "b.py", "tests/c.py"], ["b.py", "tests/c.py"]) == ("b.py",)
    assert endings_of(flat) == {".py", ""}


COBERTURA = """<coverage><packages><package><classes><class filename="a.py"><methods><method><lines>
<line number="1" hits="1" branch="true" condition-coverage="50% (1/2)"/></lines></method></methods><lines>
<line number="1" hits="1" branch="true" condition-coverage="100% (2/2)"/>
<line number="2" hits="1" branch="true" condition-coverage="25% (1/4)"/>
<line number="3" hits="1" condition-coverage="unknown"/></lines></class></classes></package></packages></coverage>"""


def test_branches_are_counted_once() -> None:
    """Of a line that stands in its method and in its class, and of one that several tests ran."""
    assert parse_coverage(COBERTURA.encode(), "c.xml").branches == (3, 6)
    assert parse_coverage(COBERTURA.encode(), "c.xml").branch_rate == 0.5
    records = ["SF:a.py", "DA:1,1", "BRDA:1,0,0,3", "BRDA:1,0,1,-", "BRDA:2,0,0,0", "BRDA:2,0,0,1", "end_of_record"]
    lcov = "\n".join(["BRDA:9,0,0,1", *records])
    assert parse_coverage(lcov.encode(), "c.info").branches == (2, 3)
    assert parse_coverage(b"SF:a.py\nDA:1,1\nend_of_record\n", "c.info").branch_rate is None
    with pytest.raises(ReportError, match=r"c\.info:2: 'x' is no line number or count of hits"):
        parse_coverage(b"SF:a.py\nBRDA:1,0,0,x\nend_of_record\n", "c.info")


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
