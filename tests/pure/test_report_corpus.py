"""A corpus of reports in the dialects and with the defects that are met: each is read as it is meant, or refused.

The files are written from the public descriptions of their formats. Totals are passed, failed, errored, skipped.
"""

from pathlib import Path

import pytest

from penstock.coverages import parse_coverage
from penstock.errors import ReportError
from penstock.reports import parse_benchmark, parse_junit, parse_metrics

CORPUS = Path(__file__).parent / "reports"

TOTALS = {
    "junit-ant.xml": (2, 0, 0, 0),
    "junit-bazel.xml": (1, 0, 0, 0),
    "junit-behave.xml": (1, 1, 0, 1),
    "junit-bom.xml": (1, 0, 0, 0),
    "junit-catch2.xml": (1, 0, 1, 0),
    "junit-cdata-markup.xml": (1, 1, 0, 0),
    "junit-comments.xml": (1, 0, 0, 0),
    "junit-ctest.xml": (1, 1, 0, 2),
    "junit-external-dtd.xml": (1, 0, 0, 0),
    "junit-go-build-failed.xml": (0, 0, 1, 0),
    "junit-go.xml": (2, 1, 0, 1),
    "junit-googletest.xml": (1, 1, 0, 1),
    "junit-gradle.xml": (1, 1, 0, 1),
    "junit-hidden-failures.xml": (2, 0, 1, 0),
    "junit-huge-attribute.xml": (0, 1, 0, 0),
    "junit-jest.xml": (1, 1, 0, 1),
    "junit-karma.xml": (2, 0, 0, 0),
    "junit-latin1.xml": (1, 0, 0, 0),
    "junit-mocha.xml": (1, 1, 0, 0),
    "junit-namespace.xml": (1, 1, 0, 0),
    "junit-nested.xml": (40, 0, 0, 0),
    "junit-nextest.xml": (2, 1, 0, 0),
    "junit-no-cases.xml": (0, 0, 0, 0),
    "junit-no-counts.xml": (2, 1, 0, 0),
    "junit-phpunit.xml": (1, 1, 0, 1),
    "junit-playwright.xml": (1, 1, 0, 0),
    "junit-properties.xml": (1, 0, 0, 0),
    "junit-pytest-old.xml": (2, 0, 0, 1),
    "junit-pytest-teardown.xml": (0, 1, 1, 0),
    "junit-pytest.xml": (2, 1, 1, 2),
    "junit-robot.xml": (1, 1, 0, 0),
    "junit-status-only.xml": (2, 1, 1, 1),
    "junit-suite-error.xml": (1, 0, 1, 0),
    "junit-surefire.xml": (2, 1, 1, 1),
    "junit-trx-nested.xml": (2, 0, 0, 0),
    "junit-trx.xml": (1, 1, 0, 1),
    "junit-unittest.xml": (1, 1, 0, 1),
    "junit-utf16.xml": (1, 1, 0, 0),
    "junit-windows.xml": (1, 0, 0, 0),
    "junit-wrong-counts.xml": (2, 0, 0, 0),
    "junit-xml11.xml": (1, 0, 0, 0),
}

LINES: dict[str, dict[str, tuple[list[int], list[int]]]] = {
    "coverage-coverlet.xml": {"Price\\Adder.cs": ([7, 8], [9])},
    "coverage-gcov.info": {"/builds/7/src/main.c": ([3, 4], [9])},
    "coverage-gcovr.xml": {"src/main.cpp": ([3], [])},
    "coverage-istanbul.info": {"page/page.js": ([1], [2]), "page/empty.js": ([], [])},
    "coverage-istanbul.xml": {"page/page.js": ([1], [2])},
    "coverage-java.xml": {"org/example/Price.java": ([3, 8], [4, 9])},
    "coverage-none.xml": {},
    "coverage-py.xml": {"digits/__init__.py": ([], []), "digits/train.py": ([1, 3, 4, 5], [7])},
}

NUMBERS: dict[str, dict[str, float]] = {
    "benchmark-plain.json": {"p50_ms": 1.5, "p99_ms": 12.0, "throughput.rps": 1000.0},
    "benchmark-pytest-none.json": {},
    "benchmark-pytest.json": {
        "test_predict[1].min_ms": 1.0,
        "test_predict[1].max_ms": 4.0,
        "test_predict[1].mean_ms": 2.0,
        "test_predict[1].median_ms": 1.8,
        "test_predict[1].stddev_ms": 0.5,
    },
    "metrics-bom.json": {"loss": -0.0015},
    "metrics-empty-object.json": {},
    "metrics-huge-whole.json": {"parameters": 7e19},
    "metrics-nested.json": {
        "train.accuracy": 0.9,
        "train.by class.cat": 1.0,
        "train.by class.dog": 0.0,
        "epochs": 12.0,
    },
}

SENTENCES = {
    "benchmark-pytest-broken.json": " benchmark 2 has no name or no stats: is this a pytest-benchmark file?",
    "benchmark-pytest-nan.json": " 'a.min_ms' is NaN, expected a finite number: mend it or leave it out",
    "coverage-bad-hits.xml": "2: '-1' is no line number or count of hits",
    "coverage-bad-line.xml": "3: 'two' is no line number or count of hits",
    "coverage-bad.info": "2: '' is no line number or count of hits: is this an LCOV file?",
    "coverage-bomb.xml": "1: a document type or entity is declared, which is refused",
    "coverage-clover.xml": "1: there is no <packages> in it: is this a Cobertura file?",
    "coverage-cut.info": " the last file has no end_of_record: the file is cut short",
    "coverage-jacoco.xml": "1: expected <coverage>, found <report>: is this a Cobertura file?",
    "coverage-no-name.xml": "1: '' is no name of a file",
    "coverage-text.info": " this is neither Cobertura XML nor LCOV: there is no <coverage> and no SF: in it",
    "coverage-truncated.xml": "1: this is no well-formed XML: no element found",
    "junit-ampersand.xml": "2: this is no well-formed XML: not well-formed (invalid token)",
    "junit-ansi.xml": "1: this is no well-formed XML: not well-formed (invalid token)",
    "junit-attribute-defaults.xml": "1: a document type or entity is declared, which is refused",
    "junit-blank.xml": " the file is empty: did the step write it?",
    "junit-case-in-case.xml": "1: a <testcase> lies inside another",
    "junit-control-reference.xml": "1: this is no well-formed XML: reference to invalid character number",
    "junit-doubled-attribute.xml": "1: this is no well-formed XML: duplicate attribute",
    "junit-empty.xml": " the file is empty: did the step write it?",
    "junit-entity-bomb.xml": "2: a document type or entity is declared, which is refused",
    "junit-external-entity.xml": "1: a document type or entity is declared, which is refused",
    "junit-html.xml": "2: expected <testsuites> or <testsuite>, found <html>: is this a JUnit file?",
    "junit-json.xml": "1: this is no well-formed XML: not well-formed (invalid token)",
    "junit-mismatched.xml": "2: this is no well-formed XML: mismatched tag",
    "junit-nested-too-deep.xml": "1: elements are nested more than 50 deep",
    "junit-parameter-entity.xml": "1: a document type or entity is declared, which is refused",
    "junit-quadratic-bomb.xml": "1: a document type or entity is declared, which is refused",
    "junit-raw-trx.xml": "2: expected <testsuites> or <testsuite>, found <TestRun>: is this a JUnit file?",
    "junit-testng.xml": "2: expected <testsuites> or <testsuite>, found <testng-results>: is this a JUnit file?",
    "junit-truncated-between.xml": "4: this is no well-formed XML: no element found",
    "junit-truncated.xml": "4: this is no well-formed XML: unclosed token",
    "junit-two-roots.xml": "2: this is no well-formed XML: junk after document element",
    "junit-undeclared-entity.xml": "1: this is no well-formed XML: undefined entity",
    "junit-unknown-encoding.xml": "1: unknown encoding: klingon",
    "junit-wrong-encoding.xml": "3: this is no well-formed XML: not well-formed (invalid token)",
    "junit-wrong-utf16.xml": "1: this is no well-formed XML: encoding specified in XML declaration is incorrect",
    "junit-xunit-net.xml": "2: expected <testsuites> or <testsuite>, found <assemblies>: is this a JUnit file?",
    "metrics-doubled.json": " 'a.b' is there twice: leave one out",
    "metrics-escape.json": " 'a\\x1b[2J' cannot name a metric: use up to 200 printable characters",
    "metrics-huge.json": " 'loss' is inf, expected a finite number: mend it or leave it out",
    "metrics-infinity.json": " 'loss.test' is -inf, expected a finite number: mend it or leave it out",
    "metrics-lines.json": "2: this is no JSON: extra data",
    "metrics-list.json": " 'losses' is a list, expected a finite number: mend it or leave it out",
    "metrics-nan.json": " 'loss' is NaN, expected a finite number: mend it or leave it out",
    "metrics-single-quotes.json": "1: this is no JSON: expecting property name enclosed in double quotes",
    "metrics-text.json": " 'accuracy' is a text, expected a finite number: mend it or leave it out",
    "metrics-trailing-comma.json": "2: this is no JSON: expecting property name enclosed in double quotes",
    "metrics-truncated.json": "1: this is no JSON: expecting ',' delimiter",
    "metrics-utf16.json": "1: this is no UTF-8 text",
}


def parse(name: str) -> object:
    parsers = {"junit": parse_junit, "coverage": parse_coverage, "benchmark": parse_benchmark, "metrics": parse_metrics}
    return parsers[name.partition("-")[0]]((CORPUS / name).read_bytes(), name)


@pytest.mark.parametrize(("name", "totals"), TOTALS.items(), ids=str)
def test_tests_are_counted_in_every_dialect(name: str, totals: tuple[int, int, int, int]) -> None:
    """Passed, failed, errored and skipped tests are those that the tool meant."""
    report = parse_junit((CORPUS / name).read_bytes(), name)
    assert (report.passed, report.failed, report.errored, report.skipped) == totals


@pytest.mark.parametrize(("name", "files"), LINES.items(), ids=str)
def test_lines_are_told_in_every_dialect(name: str, files: dict[str, tuple[list[int], list[int]]]) -> None:
    """Lines that ran and lines that did not are those of the report, whatever repeats them."""
    found = parse_coverage((CORPUS / name).read_bytes(), name).files
    assert {path: (sorted(file.covered), sorted(file.missed)) for path, file in found.items()} == files


@pytest.mark.parametrize(("name", "numbers"), NUMBERS.items(), ids=str)
def test_numbers_are_read_under_their_names(name: str, numbers: dict[str, float]) -> None:
    """Metrics and benchmarks give their numbers."""
    assert parse(name) == pytest.approx(numbers)


@pytest.mark.parametrize(("name", "sentence"), SENTENCES.items(), ids=str)
def test_what_cannot_be_read_is_refused_in_one_sentence(name: str, sentence: str) -> None:
    """Every defect is one line that begins with the file, names the line where it is known, and says what is wrong."""
    with pytest.raises(ReportError) as caught:
        parse(name)
    said = str(caught.value)
    assert said.startswith(f"{name}:")
    assert sentence in said
    assert said.count("\n") == 0


def test_every_file_of_the_corpus_is_expected() -> None:
    """No file lies there that no table speaks of."""
    assert {path.name for path in CORPUS.iterdir()} == {*TOTALS, *LINES, *NUMBERS, *SENTENCES}


def test_long_names_are_cut() -> None:
    """A name of 20,000 characters keeps its beginning."""
    (case,) = parse_junit((CORPUS / "junit-huge-attribute.xml").read_bytes(), "j.xml").cases
    assert (len(case.name), len(case.suite), case.name[-2:]) == (1001, 1001, "n…")


def test_what_a_suite_hides_is_said() -> None:
    """A suite that says that tests failed, and shows none, is an errored case; so is one that fails by itself."""
    hidden = parse_junit((CORPUS / "junit-hidden-failures.xml").read_bytes(), "j.xml").cases
    assert [(case.name, case.message) for case in hidden if case.status == "errored"] == [
        ("merged", "the suite says that 3 failed, and shows none of them")
    ]
    (broken, _) = parse_junit((CORPUS / "junit-suite-error.xml").read_bytes(), "j.xml").cases
    assert (broken.name, broken.status) == ("org.example.BrokenTest", "errored")
    assert broken.message.startswith("beforeClass failed")
