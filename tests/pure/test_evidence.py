"""Evidence files, how they are joined, and how they are scored."""

import csv
import io
import json
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts import digest_of
from penstock.errors import ReportError
from penstock.evidence import Evidence, Score, is_same, mean, read_evidence

PREDICTIONS = b"id,prediction\n1,7\n2,3.0\n3,9\n"
TRUTH = b"id,truth\n3,9\n1,1\n2,3\n"
BOTH = b"id,truth,prediction\n1,a,a\n2,b,c\n"

VALUES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda text: text.strip() and text.lower().lstrip("+-") != "nan" and "\ufeff" not in text
)
ROWS = st.dictionaries(VALUES, st.tuples(VALUES, VALUES), min_size=1, max_size=8)


def as_csv(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], ends: str = "\n") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=ends).writerows([header, *rows])
    return out.getvalue().encode()


def as_lines(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> bytes:
    return "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows).encode()


# --- reading and joining -------------------------------------------------------------------------------------------


def test_two_files_are_joined_by_id() -> None:
    """Truth and predictions meet by id, whatever their order; the truth's order stays."""
    evidence = read_evidence(PREDICTIONS, TRUTH, "p.csv", "data/t.csv")
    assert evidence == Evidence(("3", "1", "2"), ("9", "1", "3"), ("9", "7", "3.0"))
    assert (len(evidence), evidence.unmatched) == (3, 0)


def test_one_file_may_hold_it_all() -> None:
    """A file with id, truth and prediction, in any order and among other columns, is evidence by itself."""
    assert read_evidence(BOTH, None, "p.csv", None) == Evidence(("1", "2"), ("a", "b"), ("a", "c"))
    data = b'note,"prediction", id ,truth\n"x, y",a,1,a\n'
    assert read_evidence(data, None, "P.CSV", None) == Evidence(("1",), ("a",), ("a",))


@given(rows=ROWS, ends=st.sampled_from(["\n", "\r\n"]), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_any_text_survives_in_any_format(rows: dict[str, tuple[str, str]], ends: str, mark: bytes) -> None:
    """CSV with quotes, Windows line ends or a byte order mark, and JSON Lines, give the same evidence."""
    flat = [(i, t, p) for i, (t, p) in rows.items()]
    header = ("id", "truth", "prediction")
    wanted = Evidence(*map(tuple, zip(*flat, strict=True)))  # type: ignore[arg-type]
    assert read_evidence(mark + as_csv(header, flat, ends), None, "e.csv", None) == wanted
    assert read_evidence(mark + as_lines(header, flat), None, "e.jsonl", None) == wanted
    two = [(i, p) for i, _, p in flat], [(i, t) for i, t, _ in flat]
    files = as_csv(("id", "prediction"), two[0]), as_lines(("id", "truth"), two[1])
    assert read_evidence(*files, "p.csv", "t.ndjson") == wanted


def test_json_numbers_keep_their_text() -> None:
    """Numbers, true and false of JSON are the text that was written, without loss of digits."""
    data = (
        b'{"id": 1, "truth": 12345678901234567890, "prediction": 1.10}\n\n{"id": 2, "truth": true, "prediction": false}'
    )
    evidence = read_evidence(data, None, "e.jsonl", None)
    assert evidence == Evidence(("1", "2"), ("12345678901234567890", "true"), ("1.10", "false"))


def test_what_only_one_file_has_is_counted() -> None:
    """Examples without prediction and predictions without truth are left out, and both are counted."""
    evidence = read_evidence(PREDICTIONS, b"id,truth\n1,7\n4,4\n5,5\n", "p.csv", "t.csv")
    assert evidence == Evidence(("1",), ("7",), ("7",), unpredicted=2, unlabelled=2)
    assert evidence.unmatched == 4


@pytest.mark.parametrize(
    ("data", "file", "sentence"),
    [
        (b"", "e.csv", "e.csv: the file is empty"),
        (b"id,truth,prediction\n", "e.csv", "e.csv: there are no examples"),
        (b"id,truth,predicted\n1,a,a\n", "e.csv", 'e.csv:1: there is no column "prediction": rename "predicted"'),
        (b"id,label,prediction\n1,a,a\n", "e.csv", 'e.csv:1: there is no column "truth"; others are label'),
        (b"id,prediction\n1,a\n", "e.csv", 'no column "truth"; others are none'),
        (b"id,truth,truth,prediction\n", "e.csv", 'e.csv:1: the column "truth" is there twice'),
        (BOTH + b"3,a\n", "e.csv", "e.csv:4: there are 2 columns, expected 3"),
        (BOTH + b"3,a,b,c\n", "e.csv", "e.csv:4: there are 4 columns, expected 3"),
        (BOTH + b"\n1,a,a\n", "e.csv", 'e.csv:5: the id "1" is already in line 2'),
        (BOTH + b",a,a\n", "e.csv", 'e.csv:4: the column "id" is empty'),
        (BOTH + b"3,,a\n", "e.csv", 'e.csv:4: the column "truth" is empty'),
        (BOTH + b"3,a,NaN\n", "e.csv", 'e.csv:4: the column "prediction" is NaN'),
        (BOTH + b'3,"a,b', "e.csv", "e.csv:4: this is no CSV: unexpected end of data"),
        (BOTH + b"3,a," + b"x" * 200_000, "e.csv", "e.csv:4: this is no CSV: field larger"),
        (BOTH + b"3,\xff,a\n", "e.csv", "e.csv:4: this is no UTF-8 text"),
        (b"{}", "e.jsonl", 'e.jsonl:1: there is no column "id"'),
        (b'{"id": "1", "truth": "a", "prediction": "a"}\n{', "e.jsonl", "e.jsonl:2: this is no JSON"),
        (b"[" * 100_000, "e.jsonl", "e.jsonl:1: this is no JSON"),
        (b"[1]", "e.jsonl", "e.jsonl:1: expected an object"),
        (b'{"id": "1", "id": "2"}', "e.jsonl", "e.jsonl:1: a name is there twice"),
        (b'{"id": null, "truth": 1, "prediction": 1}', "e.jsonl", 'the column "id" is empty'),
        (b'{"id": 1, "truth": NaN, "prediction": 1}', "e.jsonl", 'the column "truth" is NaN'),
        (b'{"id": 1, "truth": [1], "prediction": 1}', "e.jsonl", 'e.jsonl:1: "truth" is a list or object'),
        (BOTH, "e.parquet", "e.parquet: evidence is read from files that end in .csv, .jsonl, .ndjson"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_doubtful_evidence_is_refused_with_file_and_line(data: bytes, file: str, sentence: str) -> None:
    """Every kind of damage is one line that says what is wrong, in which file and where."""
    with pytest.raises(ReportError) as caught:
        read_evidence(data, None, file, None)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_without_a_common_id_are_refused() -> None:
    """Where no id of one file is in the other, both are named."""
    with pytest.raises(ReportError, match=r"p\.csv: no id of it is in t\.csv"):
        read_evidence(PREDICTIONS, b"id,truth\nx,1\n", "p.csv", "t.csv")


@given(data=st.binary(max_size=100), name=st.sampled_from(["e.csv", "e.jsonl"]))
def test_no_bytes_break_the_reader(data: bytes, name: str) -> None:
    """Whatever is in the file, it is read or refused."""
    try:
        read_evidence(data, None, name, None)
    except ReportError as error:
        assert str(error).startswith(name)  # noqa: PT017 (most bytes raise, some do not)


# --- the test set --------------------------------------------------------------------------------------------------


@given(rows=ROWS)
def test_the_test_set_is_what_was_asked_not_what_was_answered(rows: dict[str, tuple[str, str]]) -> None:
    """Order and predictions do not change it; another truth does."""
    ids, truth = list(rows), [t for t, _ in rows.values()]
    one = Evidence(tuple(ids), tuple(truth), tuple(truth))
    other = Evidence(tuple(ids[::-1]), tuple(truth[::-1]), ("?",) * len(ids))
    assert one.test_set == other.test_set == digest_of("test-set", sorted(zip(ids, truth, strict=True)))
    changed = Evidence(tuple(ids), (truth[0] + "!", *truth[1:]), tuple(truth))
    assert changed.test_set != one.test_set


# --- scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "prediction", "same"),
    [
        ("3", "3.0", True),
        ("0.10", ".1", True),
        ("1e2", "+100", True),
        ("-0", "0", True),
        ("cat", "cat", True),
        ("cat", "Cat", False),
        ("3", "three", False),
        ("3 ", "3", False),
        ("1_0", "10", False),
        ("9007199254740993", "9007199254740992", False),
        ("inf", "infinity", False),
        ("٣", "3", False),
        ("1e999999", "2e999999", False),
        ("1e9999999999", "1e9999999998", False),
    ],
)
def test_equal_texts_and_equal_numbers_are_correct(truth: str, prediction: str, *, same: bool) -> None:
    """Numbers compare as numbers, exactly; everything else as text."""
    assert is_same(truth, prediction) == is_same(prediction, truth) == same


def test_each_kind_of_score_is_computed_per_example() -> None:
    """Correct is 1 or 0; errors are absolute or squared differences."""
    evidence = Evidence(("a", "b", "c"), ("1", "2", "3"), ("1.0", "4", "-1"))
    assert evidence.scores("correct") == (1.0, 0.0, 0.0)
    assert evidence.scores("absolute_error") == (0.0, 2.0, 4.0)
    assert evidence.scores("squared_error") == (0.0, 4.0, 16.0)


@pytest.mark.parametrize("text", ["cat", "inf", "1e400", "1_0", " 1"])
@pytest.mark.parametrize("kind", ["absolute_error", "squared_error"])
def test_errors_need_finite_numbers(text: str, kind: Score) -> None:
    """A text where a number is needed is refused with the example's id and the column."""
    with pytest.raises(ReportError, match='truth of example "b"'):
        Evidence(("a", "b"), ("1", text), ("1", "1")).scores(kind)
    with pytest.raises(ReportError, match='prediction of example "b"'):
        Evidence(("a", "b"), ("1", "1"), ("1", text)).scores(kind)


@pytest.mark.parametrize(("prediction", "kind"), [("-1e308", "absolute_error"), ("1e200", "squared_error")])
def test_an_error_beyond_counting_is_refused(prediction: str, kind: Score) -> None:
    """A difference that is no finite number is refused rather than averaged."""
    with pytest.raises(ReportError, match='error of example "a" is too large'):
        Evidence(("a",), ("1e308",), (prediction,)).scores(kind)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), seed=st.integers())
def test_the_mean_does_not_depend_on_the_order(values: list[float], seed: int) -> None:
    """Adding up loses nothing, so any order gives the same mean, between the least and the greatest."""
    turned = values.copy()
    random.Random(seed).shuffle(turned)  # noqa: S311 (no secret)
    assert mean(values) == mean(turned)
    assert min(values) - 1e-9 <= mean(values) <= max(values) + 1e-9
