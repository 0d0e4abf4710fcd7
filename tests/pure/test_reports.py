"""JUnit, metrics and benchmark files, good, bad and hostile."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import reports
from penstock.errors import ReportError
from penstock.reports import benchmark_rounds, parse_benchmark, parse_junit, parse_metrics, parse_results

# --- JUnit ---------------------------------------------------------------------------------------------------------

PYTEST = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="0.5">
<testcase classname="tests.test_a.TestA" name="test_good" time="0.010" />
<testcase classname="tests.test_a.TestA" name="test_bad[1]" time="0.020"><failure message="assert 1 == 2">def test():
&gt;   assert 1 == 2</failure></testcase>
<testcase classname="" name="tests.test_b" time="0.000"><error message="collection failure">ImportError
</error></testcase>
<testcase classname="tests.test_a" name="test_later" time="0.001"><skipped type="pytest.skip" message="not today" />
</testcase></testsuite></testsuites>"""


def test_what_pytest_writes_is_read_case_by_case() -> None:
    """Names, classes, states, seconds and messages of a report of pytest come through, with their counts."""
    report = parse_junit(PYTEST, "junit.xml")
    assert [(c.suite, c.name, c.status) for c in report.cases] == [
        ("tests.test_a.TestA", "test_good", "passed"),
        ("tests.test_a.TestA", "test_bad[1]", "failed"),
        ("pytest", "tests.test_b", "errored"),
        ("tests.test_a", "test_later", "skipped"),
    ]
    assert (report.passed, report.failed, report.errored, report.skipped) == (1, 1, 1, 1)
    assert report.seconds == pytest.approx(0.031)
    assert [c.message for c in report.cases] == [
        "",
        "assert 1 == 2\ndef test():\n>   assert 1 == 2",
        "collection failure\nImportError",
        "not today",
    ]


def test_suites_may_be_nested_and_attributes_missing() -> None:
    """Cases at any depth are found; the nearest named suite is theirs; a case without attributes is still one."""
    report = parse_junit(
        b"<testsuite name='a'><properties><property name='error'/></properties>"
        b"<testsuite name='b'><testsuite><testcase/></testsuite></testsuite><testcase name='t'/>"
        b"<system-out>noise</system-out></testsuite>",
        "junit.xml",
    )
    assert report.cases == (
        reports.TestCase("unnamed", "b", "passed", 0.0),
        reports.TestCase("t", "a", "passed", 0.0),
    )
    assert parse_junit(b"<testsuites/>", "junit.xml").cases == ()


def test_namespaces_and_encodings_are_no_difference() -> None:
    """A default namespace or UTF-16 gives the same cases."""
    text = "<testsuite xmlns='urn:x'><testcase name='é'><failure/></testcase></testsuite>"
    for data in (text.encode(), ("<?xml version='1.0' encoding='utf-16'?>" + text).encode("utf-16")):
        assert [(c.name, c.status) for c in parse_junit(data, "junit.xml").cases] == [("é", "failed")]


@pytest.mark.parametrize(
    ("inside", "status"),
    [
        ("<failure/><error/>", "errored"),
        ("<skipped/><failure/>", "failed"),
        ("<failure><error/></failure>", "failed"),
        ("<flakyFailure/><rerunFailure/>", "passed"),
        ("<system-err>error</system-err>", "passed"),
    ],
)
def test_the_worst_state_of_a_case_counts(inside: str, status: str) -> None:
    """A case that both errs and fails is errored; what a retry mended is passed."""
    (case,) = parse_junit(f"<testsuite><testcase>{inside}</testcase></testsuite>".encode(), "junit.xml").cases
    assert case.status == status


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0.5", 0.5), ("1,234.5", 1234.5), ("1e-3", 0.001), ("", 0), ("soon", 0), ("-1", 0), ("nan", 0), ("inf", 0)],
)
def test_times_are_read_as_tools_write_them(text: str, seconds: float) -> None:
    """Seconds may have thousands separators; what is no finite positive number counts as 0."""
    (case,) = parse_junit(f"<testsuite><testcase time='{text}'/></testsuite>".encode(), "junit.xml").cases
    assert case.seconds == seconds


def test_a_huge_message_is_cut() -> None:
    """A message of a million characters keeps its beginning and says how much is gone."""
    data = b"<testsuite><testcase><failure>" + b"x" * 1_000_000 + b"</failure></testcase></testsuite>"
    (case,) = parse_junit(data, "junit.xml").cases
    assert len(case.message) < reports.MAX_MESSAGE + 40
    assert case.message.endswith("(996000 more characters)")


LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<testsuite name="&b;"/>"""
OUTSIDE = b"""<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite>&x;</testsuite>"""


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "junit.xml: the file is empty"),
        (b" \n ", "junit.xml: the file is empty"),
        (PYTEST[:300], "junit.xml:4: this is no well-formed XML"),
        (b"not xml", "junit.xml:1: this is no well-formed XML"),
        (b"<testsuite>\n<testcase>\n</testsuite>", "junit.xml:3: this is no well-formed XML: mismatched tag"),
        (b"\n<html><body/></html>", "junit.xml:1: this is no well-formed XML|junit.xml:2: expected <testsuites>"),
        (b"<html/>", "junit.xml:1: expected <testsuites> or <testsuite>, found <html>"),
        (LAUGHS, "junit.xml:2: a document type or entity is declared, which is refused"),
        (OUTSIDE, "junit.xml:1: a document type or entity is declared, which is refused"),
        (b"<testsuite>" * 100_000, "junit.xml:1: elements are nested more than 50 deep"),
        (b"<testsuite><testcase><a><testcase/></a></testcase></testsuite>", "a <testcase> lies inside another"),
        (b"<?xml version='1.0' encoding='klingon'?><testsuite/>", "junit.xml:1: "),
        (b"\xff\xfe\x00", "junit.xml:"),
        (b"<testsuite>\x00</testsuite>", "junit.xml:1: this is no well-formed XML"),
        (b"x" * (reports.MAX_BYTES + 1), "junit.xml: 64 MiB are too much"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_what_is_no_junit_file_is_refused_in_one_sentence(data: bytes, sentence: str) -> None:
    """Empty, cut, foreign, hostile and huge files give one line with the file and, where known, its line."""
    with pytest.raises(ReportError, match=sentence) as caught:
        parse_junit(data, "junit.xml")
    assert "\n" not in str(caught.value)


@given(data=st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Whatever is in the file, it is read or refused."""
    for parse in (parse_junit, parse_metrics, parse_benchmark):
        try:
            parse(data, "file")
        except ReportError as error:
            assert str(error).startswith("file:")  # noqa: PT017 (most bytes raise, some do not)


@given(cut=st.integers(1, len(PYTEST) - 2))
def test_a_report_that_is_cut_is_never_half_believed(cut: int) -> None:
    """A file that ends early is refused wherever it ends."""
    with pytest.raises(ReportError):
        parse_junit(PYTEST[:cut], "junit.xml")


# --- metrics -------------------------------------------------------------------------------------------------------

NAMES = st.text("abcxyz_-", min_size=1, max_size=4)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
NESTED = st.recursive(NUMBERS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


def flat(value: object, name: str = "") -> dict[str, float]:
    if not isinstance(value, dict):
        return {name: float(str(value))}
    return {n: v for key, inner in value.items() for n, v in flat(inner, f"{name}.{key}" if name else key).items()}


@given(value=st.dictionaries(NAMES, NESTED, max_size=5))
def test_nested_numbers_get_dotted_names(value: dict[str, object]) -> None:
    """Every number of the object is there under its path, and nothing else."""
    assert parse_metrics(json.dumps(value).encode(), "metrics.json") == flat(value)


def test_flat_and_nested_numbers_are_read() -> None:
    """Whole and broken numbers, a byte order mark and Windows line ends make no difference."""
    data = b'\xef\xbb\xbf{\r\n"train": {"accuracy": 0.967, "epochs": 4},\r\n"loss": 1e-3}'
    assert parse_metrics(data, "m.json") == {"train.accuracy": 0.967, "train.epochs": 4.0, "loss": 0.001}
    assert parse_metrics(b"{}", "m.json") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "m.json: the file is empty"),
        ("{", "m.json:1: this is no JSON"),
        ('{"a": 1,\n}', r"m.json:\d: this is no JSON"),
        ('{"a": 1} x', "m.json:1: this is no JSON: extra data"),
        ("[1, 2]", "m.json: expected a JSON object of numbers, found a list"),
        ("0.9", "found 0.9"),
        ('{"a": {"b": true}}', "'a.b' is true, expected a finite number"),
        ('{"a": null}', "'a' is null"),
        ('{"a": "0.9"}', "'a' is a text"),
        ('{"a": [1]}', "'a' is a list"),
        ('{"a": NaN}', "'a' is NaN"),
        ('{"a": -Infinity}', "'a' is -inf"),
        ('{"a": 1e999}', "'a' is inf"),
        ('{"a": ' + "9" * 10_000 + "}", "'a' is inf"),
        ('{"a": 1, "a": 1}', "'a' is there twice"),
        ('{"a": {"b": 1}, "a.b": 2}', "'a.b' is there twice"),
        ('{"a": {"b": 1}, "a": {"b": 2}}', "'a.b' is there twice"),
        ('{"": 1}', "'' cannot name a metric"),
        ('{"a\\u001b[2J": 1}', "cannot name a metric"),
        ('{"a":' * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        ('{"a":' * 100_000, "nested too deep|no JSON"),
        ("[" * 100_000, "nested too deep|no JSON"),
        (json.dumps({str(i): i for i in range(10_001)}), "more than 10000 numbers"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_no_object_of_numbers_is_refused_with_its_name(text: str, sentence: str) -> None:
    """Everything but finite numbers under names that come once is refused, in one line that names file and metric."""
    with pytest.raises(ReportError, match=sentence) as caught:
        parse_metrics(text.encode(), "m.json")
    assert str(caught.value).startswith("m.json")
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_refused_with_its_line() -> None:
    """Bytes of another encoding are refused where they stand."""
    with pytest.raises(ReportError, match=r"m\.json:2: this is no UTF-8 text"):
        parse_metrics(b'{\n"\xe9": 1}', "m.json")


# --- benchmarks ----------------------------------------------------------------------------------------------------


def test_a_plain_benchmark_is_read_like_metrics() -> None:
    """Plain JSON numbers keep their names and units."""
    assert parse_benchmark(b'{"p99_ms": 12.5, "benchmarks": 3}', "b.json") == {"p99_ms": 12.5, "benchmarks": 3.0}


def test_a_list_of_a_plain_benchmark_is_its_rounds() -> None:
    """They give summaries beside the other numbers, and are read themselves where a ratio is asked."""
    data = b'{"p99_ms": 12.5, "load": {"ms": [3, 1, 2, 10], "one": [4]}, "none": {}}'
    assert parse_benchmark(data, "b.json") == {
        "p99_ms": 12.5,
        "load.ms.median": 2.5,
        "load.ms.mean": 4.0,
        "load.ms.min": 1.0,
        "load.ms.max": 10.0,
        **dict.fromkeys(("load.one.median", "load.one.mean", "load.one.min", "load.one.max"), 4.0),
    }
    assert benchmark_rounds(data, "b.json") == {"load.ms": [3.0, 1.0, 2.0, 10.0], "load.one": [4.0]}
    for bad in (b'{"a": [1, "x"]}', b'{"a": [1, NaN]}', b'{"a": [[1]]}', b'{"a": [true]}'):
        with pytest.raises(ReportError, match="the rounds of 'a' are not all finite numbers"):
            benchmark_rounds(bad, "b.json")
        with pytest.raises(ReportError, match="'a' is a list, expected a finite number"):
            parse_benchmark(bad, "b.json")
    with pytest.raises(ReportError, match=r"'a\.min' is there twice"):
        parse_benchmark(b'{"a": [1], "a.min": 2}', "b.json")
    with pytest.raises(ReportError, match="nested"):
        parse_benchmark(b'{"a":' * 900 + b"1" + b"}" * 900, "b.json")


def test_rounds_of_pytest_benchmark_are_read_where_they_are_kept() -> None:
    """In seconds, by the benchmark's name; a file without them, or none at all, has none."""
    data = {
        "benchmarks": [
            {"name": "a", "stats": {"data": [0.1, 0.2]}},
            {"name": "b", "stats": {"min": 1}},
            {"stats": {}},
            3,
        ]
    }
    assert benchmark_rounds(json.dumps(data).encode(), "b.json") == {"a": [0.1, 0.2]}
    assert benchmark_rounds(b"[1]", "b.json") == {}


def test_pytest_benchmark_gives_milliseconds_per_benchmark() -> None:
    """Its seconds become milliseconds under the benchmark's name; what we do not know of is left alone."""
    stats = {"min": 0.001, "max": 1, "mean": 0.002, "median": 0.0015, "stddev": 0.0005, "rounds": 5, "outliers": "1;2"}
    data = json.dumps({"machine_info": {"node": "x"}, "benchmarks": [{"name": "test_predict[32]", "stats": stats}]})
    found = parse_benchmark(data.encode(), "b.json")
    assert found.keys() == {f"test_predict[32].{s}_ms" for s in ("min", "max", "mean", "median", "stddev")}
    assert math.isclose(found["test_predict[32].median_ms"], 1.5)
    assert found["test_predict[32].max_ms"] == 1000


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"benchmarks": [1]}, "b.json: benchmark 1 has no name or no stats"),
        ({"benchmarks": [{"name": "a", "stats": []}]}, "benchmark 1 has no name or no stats"),
        ({"benchmarks": [{"name": "a", "stats": {"min": 1}}] * 2}, "'a.min_ms' is there twice"),
        ({"benchmarks": [{"name": "a", "stats": {"min": None}}]}, "'a.min_ms' is null"),
        ([], "found a list"),
    ],
)
def test_a_damaged_benchmark_is_refused(value: object, sentence: str) -> None:
    """A benchmark without name or numbers, or two of one name, are refused with what is wrong."""
    with pytest.raises(ReportError, match=sentence):
        parse_benchmark(json.dumps(value).encode(), "b.json")


# --- results as pytest tells them ----------------------------------------------------------------------------------

TOLD = b'["t","a","passed",0.5,""]\n["t","b","failed",1.5,"no"]\n{"exit":1,"whole":true}\n'


def test_what_a_session_told() -> None:
    """Each test with its time and message, the exit code, and that nothing is missing."""
    heard = parse_results(TOLD)
    assert [(c.suite, c.name, c.status, c.seconds, c.message) for c in heard.report.cases] == [
        ("t", "a", "passed", 0.5, ""),
        ("t", "b", "failed", 1.5, "no"),
    ]
    assert (heard.exit_code, heard.whole) == (1, True)


@pytest.mark.parametrize("length", range(0, len(TOLD) - 1, 7))
def test_a_session_that_was_cut_is_not_whole(length: int) -> None:
    """Wherever a killed pytest stopped writing, what stands there counts and nobody takes it for all."""
    heard = parse_results(TOLD[:length])
    assert len(heard.report.cases) <= 2
    assert not heard.whole


@given(st.one_of(st.binary(max_size=200), st.lists(st.text(max_size=20)).map(lambda lines: "\n".join(lines).encode())))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    """Whatever a step wrote is read without an error, and what is kept of it can be written as UTF-8."""
    heard = parse_results(TOLD + data)
    assert len(heard.report.cases) >= 2
    "".join(case.name + case.suite + case.message for case in heard.report.cases).encode()
