"""Evidence files, how they are joined, and how they are scored."""

import csv
import io
import json
import math
import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import columns
from penstock.errors import ReportError
from penstock.evidence import Evidence, is_same, mean, paired, read_evidence, read_truth
from penstock.texts import canonical_text

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


def meant(text: str) -> str:
    return canonical_text(text.encode()).decode()


def plain(evidence: Evidence) -> tuple[tuple[str, ...], ...]:
    """Ids, truths and predictions as texts."""
    arrays = (evidence.ids, evidence.truth, evidence.predictions)
    return tuple(tuple(text.decode() for text in array.tolist()) for array in arrays if array is not None)


# --- reading and joining -------------------------------------------------------------------------------------------


def test_two_files_are_joined_by_id() -> None:
    """Truth and predictions meet by id, whatever their order; examples are in the order of their ids."""
    evidence = read_evidence(PREDICTIONS, TRUTH, "p.csv", "data/t.csv")
    assert plain(evidence) == (("1", "2", "3"), ("1", "3", "9"), ("7", "3", "9"))
    assert (len(evidence), evidence.unmatched) == (3, 0)


def test_one_file_may_hold_it_all() -> None:
    """A file with id, truth and prediction, in any order and among other columns, is evidence by itself."""
    assert plain(read_evidence(BOTH, None, "p.csv", None)) == (("1", "2"), ("a", "b"), ("a", "c"))
    data = b'note,"prediction", id ,truth\n"x, y",a,1,a\n'
    assert plain(read_evidence(data, None, "P.CSV", None)) == (("1",), ("a",), ("a",))


@given(rows=ROWS, ends=st.sampled_from(["\n", "\r\n"]), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_any_text_survives_in_any_format(rows: dict[str, tuple[str, str]], ends: str, mark: bytes) -> None:
    """CSV with quotes, Windows line ends or a byte order mark, and JSON Lines, give the same evidence."""
    flat = [(i, t, p) for i, (t, p) in rows.items()]
    header = ("id", "truth", "prediction")
    wanted = tuple(zip(*sorted((i, meant(t), meant(p)) for i, t, p in flat), strict=True))
    assert plain(read_evidence(mark + as_csv(header, flat, ends), None, "e.csv", None)) == wanted
    assert plain(read_evidence(mark + as_lines(header, flat), None, "e.jsonl", None)) == wanted
    two = [(i, p) for i, _, p in flat], [(i, t) for i, t, _ in flat]
    files = as_csv(("id", "prediction"), two[0]), as_lines(("id", "truth"), two[1])
    assert plain(read_evidence(*files, "p.csv", "t.ndjson")) == wanted


def test_json_numbers_keep_their_text() -> None:
    """Numbers, true and false of JSON are the text that was written, without loss of digits."""
    data = (
        b'{"id": 1, "truth": 12345678901234567890, "prediction": 1.10}\n\n{"id": 2, "truth": true, "prediction": false}'
    )
    evidence = read_evidence(data, None, "e.jsonl", None)
    assert plain(evidence) == (("1", "2"), ("12345678901234567890", "true"), ("1.1", "false"))


def test_what_only_one_file_has_is_counted() -> None:
    """Examples without prediction and predictions without truth are left out, and both are counted."""
    evidence = read_evidence(PREDICTIONS, b"id,truth\n1,7\n4,4\n5,5\n", "p.csv", "t.csv")
    assert plain(evidence) == (("1",), ("7",), ("7",))
    assert (evidence.unpredicted, evidence.unlabelled, evidence.unmatched) == (2, 2, 4)


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
        (BOTH + b'3,"a,b', "e.csv", "e.csv:4: this is no CSV: a quote is opened"),
        (BOTH + b'3,a,b"c\n4,"d",e', "e.csv", "e.csv:4: this is no CSV: a quote is in the middle of a field"),
        (BOTH + b'3,a,b"c\n4,"d"",e', "e.csv", "e.csv:4: this is no CSV: a quote is in the middle of a field"),
        (BOTH + b"3,\x00,a\n", "e.csv", "e.csv:4: there is a NUL byte"),
        (BOTH + b"3,\xff,a\n", "e.csv", "e.csv:4: this is no UTF-8 text"),
        (b"\xef\xbb\xbf", "e.csv", "e.csv: the file is empty"),
        (b"\xef\xbb\xbf\n\n", "e.csv", "e.csv: the file is empty"),
        (b"\xef\xbb\xbf", "e.jsonl", "e.jsonl: there are no examples"),
        (
            b'{"id": 1, "truth": 1, "prediction": 1}\n{"id": 2, "truth": 1}',
            "e.jsonl",
            'e.jsonl:2: there is no column "p',
        ),
        (b"{}", "e.jsonl", 'e.jsonl:1: there is no column "id"'),
        (b'{"id": "1", "truth": "a", "prediction": "a"}\n{', "e.jsonl", "e.jsonl:2: this is no JSON"),
        (b"[" * 100_000, "e.jsonl", "e.jsonl:1: this is no JSON"),
        (b"[1]", "e.jsonl", "e.jsonl:1: expected an object"),
        (b'{"id": "1", "id": "2"}', "e.jsonl", "e.jsonl:1: a name is there twice"),
        (b'{"id": null, "truth": 1, "prediction": 1}', "e.jsonl", 'the column "id" is empty'),
        (b'{"id": 1, "truth": NaN, "prediction": 1}', "e.jsonl", 'the column "truth" is NaN'),
        (b'{"id": 1, "truth": [1], "prediction": 1}', "e.jsonl", 'e.jsonl:1: "truth" is a list or object'),
        (b'{"id": "a\\u0000", "truth": 1, "prediction": 1}', "e.jsonl", 'e.jsonl:1: "id" has a NUL character'),
        (BOTH, "e.tsv", "e.tsv: evidence is read from files that end in .csv, .jsonl, .ndjson, .parquet"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_doubtful_evidence_is_refused_with_file_and_line(data: bytes, file: str, sentence: str) -> None:
    """Every kind of damage is one line that says what is wrong, in which file and where."""
    with pytest.raises(ReportError) as caught:
        read_evidence(data, None, file, None)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("block", [1, 7, 30])
def test_a_file_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Blocks end where a line ends outside of quotes; lines are counted through all of them."""
    monkeypatch.setattr(columns, "_BLOCK", block)
    data = b'\n\nid,truth,prediction\r\n\r\n1,"a\n,b",c\n"2","x""y",3\n\n3,"","\n"\n'
    with pytest.raises(ReportError, match=r'e\.csv:9: the column "truth" is empty'):
        read_evidence(data, None, "e.csv", None)
    found = read_evidence(data.replace(b'3,""', b'3,"e"'), None, "e.csv", None)
    assert plain(found) == (("1", "2", "3"), ("a\n,b", 'x"y', "e"), ("c", "3", "\n"))
    with pytest.raises(ReportError, match=r"e\.csv:11: there are 1 columns, expected 3"):
        read_evidence(data.replace(b'""', b"x") + b"4\n", None, "e.csv", None)


def test_old_line_ends_and_long_texts_are_read() -> None:
    """Files of a carriage return per line, and texts of thousands of characters, plain or quoted."""
    long = b"x" * 5000
    data = b"id,truth,prediction\r1," + long + b',"' + long + b'"\r2,"' + long + b'""",' + long + b"\r"
    assert read_evidence(data, None, "e.csv", None).scored("correct").own.tolist() == [1.0, 0.0]


def test_too_large_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would not fit into memory is not begun."""
    monkeypatch.setattr(columns, "MAX_BYTES", 10)
    with pytest.raises(ReportError, match=r"e\.csv: 0 MiB are too much: evidence may have 0 MiB a file"):
        read_evidence(BOTH, None, "e.csv", None)


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
    assert one.test_set == other.test_set
    changed = Evidence(tuple(ids), (truth[0] + "!", *truth[1:]), tuple(truth))
    assert changed.test_set != one.test_set


def test_truths_may_be_read_once_for_many_models() -> None:
    """Evidence on truths that were read before is the same; a column that was not read with them is named."""
    truth = read_truth(TRUTH, "t.csv")
    once = read_evidence(PREDICTIONS, truth, "p.csv", None)
    again = read_evidence(PREDICTIONS, TRUTH, "p.csv", "t.csv")
    assert (plain(once), once.test_set) == (plain(again), again.test_set)
    with pytest.raises(ReportError, match=r'neither p\.csv nor t\.csv has the column "lang"'):
        read_evidence(PREDICTIONS, truth, "p.csv", None, slices=("lang",))


@pytest.mark.parametrize(
    "truths",
    [
        (b"3,1\n1,0.5\n2,-2\n", b'{"id":1,"truth":0.50}\n{"id":2,"truth":-2.0}\n{"id":3,"truth":1e0}'),
        (b"1,cat\r\n2,d\xc3\xb6g\r\n", b'{"truth": "d\\u00f6g", "id": "2"}\r\n\r\n{"truth": "cat", "id": "1"}'),
        (b'1,True\n2,False\n3,"a,b"\n', b'{"id":1,"truth":true}\n{"id":2,"truth":false}\n{"id":"3","truth":"a,b"}'),
    ],
    ids=["numbers", "texts", "booleans"],
)
def test_the_format_of_a_file_is_no_part_of_the_test_set(truths: tuple[bytes, bytes]) -> None:
    """CSV and JSON Lines of the same data are the same test set, in any order and notation."""
    answers = b'{"id": 1, "prediction": 1}'
    one = read_evidence(answers, b"id,truth\n" + truths[0], "p.jsonl", "t.csv")
    other = read_evidence(answers, truths[1], "p.jsonl", "t.jsonl")
    assert one.test_set == other.test_set
    assert len(one) == 1


def test_a_lacking_prediction_is_no_other_test_set() -> None:
    """What was asked counts, whether the model answered or not."""
    whole = read_evidence(PREDICTIONS, TRUTH, "p.csv", "t.csv")
    part = read_evidence(b"id,prediction\n1,7\n", TRUTH, "p.csv", "t.csv")
    assert (part.unpredicted, part.test_set) == (2, whole.test_set)


# --- Parquet -------------------------------------------------------------------------------------------------------


def as_parquet(table: object) -> bytes:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is no dependency")
    out = io.BytesIO()
    parquet.write_table(table, out, row_group_size=2)
    return out.getvalue()


def test_parquet_is_the_same_evidence_as_csv() -> None:
    """Integers, floats, single floats, dictionaries, booleans and texts mean what they mean in CSV."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is no dependency")
    data = {
        "id": pa.array([3, 1, 2]),
        "truth": pa.array([1.0, 0.5, -2.25]),
        "prediction": pa.array([1, 1, 0.1], pa.float32()),
        "kind": pa.array(["ü", "b", "b"]).dictionary_encode(),
        "flag": pa.array([True, False, True]),
    }
    text = "id,truth,prediction,kind,flag\n1,0.5,1.0,b,False\n2,-2.25,0.1,b,True\n3,1,1,ü,True\n".encode()
    found = read_evidence(as_parquet(pa.table(data)), None, "e.parquet", None, slices=("kind",))
    wanted = read_evidence(text, None, "e.csv", None, slices=("kind",))
    assert plain(found) == plain(wanted)
    assert found.test_set == wanted.test_set
    assert found.slices["kind"].labels == wanted.slices["kind"].labels == ("b", "ü")


def test_doubtful_parquet_is_refused_with_its_row() -> None:
    """Nulls, NaN, lists, doubled ids and cut files are named, with the row where there is one."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is no dependency")
    whole = as_parquet(pa.table({"id": [1, 2, 1], "truth": ["a", "b", "c"], "prediction": [1, 2, 3]}))
    nulls = as_parquet(pa.table({"id": [1, 2], "truth": ["a", None], "prediction": [1, 2]}))
    nans = as_parquet(pa.table({"id": [1, 2], "truth": [0.5, float("nan")], "prediction": [1, 2]}))
    lists = as_parquet(pa.table({"id": [1], "truth": [[1]], "prediction": [1]}))
    for data, sentence in (
        (whole, 'e.parquet, row 3: the id "1" is already in row 1'),
        (nulls, 'e.parquet, row 2: the column "truth" is empty'),
        (nans, 'e.parquet, row 2: the column "truth" is NaN'),
        (lists, 'e.parquet: the column "truth" is list<'),
        (whole[:-8], "e.parquet: this is no whole Parquet file"),
    ):
        with pytest.raises(ReportError, match=sentence):
            read_evidence(data, None, "e.parquet", None)


def test_parquet_without_pyarrow_is_a_kind_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is not installed, the sentence says so and what else to do."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ReportError, match=r"e\.csv: Parquet is read with pyarrow, which is not installed here: install"
    ):
        read_evidence(b"PAR1", None, "e.csv", None)


# --- slices, columns, probabilities --------------------------------------------------------------------------------

SLICED = b"id,truth,prediction,lang,f1\n2,b,b,de,0.25\n1,a,b,en,1\n3,c,c,de,-1e-2\n"


def test_slices_tell_to_which_label_an_example_belongs() -> None:
    """Codes are in the order of the ids, labels in their own; they come from either file."""
    one = read_evidence(SLICED, None, "e.csv", None, slices=("lang",)).slices["lang"]
    assert (one.labels, one.codes.tolist(), one.places("de").tolist()) == (("de", "en"), [1, 0, 0], [1, 2])
    truth = b"id,truth,lang\n3,a,x\n1,a,y\n"
    two = read_evidence(PREDICTIONS, truth, "p.csv", "t.csv", slices=("lang",)).slices["lang"]
    assert (two.labels, two.codes.tolist()) == (("x", "y"), [1, 0])


def test_a_numeric_column_is_a_score() -> None:
    """A named column is read as it is, higher is better; no prediction is needed then."""
    found = read_evidence(SLICED, None, "e.csv", None, scores=("f1",)).scored("f1")
    assert (found.values.tolist(), found.sign, len(found)) == ([1.0, 0.25, -0.01], 1, 3)
    evidence = read_evidence(b"id,f1\n1,0.5\n", b"id,truth\n1,a\n", "p.csv", "t.csv", scores=("f1",))
    assert evidence.scored("f1").values.tolist() == [0.5]
    for name, sentence in (("correct", 'no column "prediction"'), ("f2", 'the score "f2" was not read')):
        with pytest.raises(ReportError, match=sentence):
            evidence.scored(name)


@pytest.mark.parametrize(
    ("data", "scores", "slices", "sentence"),
    [
        (SLICED, ("f2",), (), 'e.csv:1: there is no column "f2"'),
        (SLICED, (), ("language",), 'e.csv:1: there is no column "language": rename "lang"'),
        (SLICED, ("lang",), (), "e.csv:2: the column \"lang\" is 'de', expected a finite number"),
        (b"id,truth,a\n1,1,0\n2,1,1e999\n", ("a",), (), "e.csv:3: the column \"a\" is '1e999', expected a finite"),
        (b"id,truth,probability\n1,1,1.5\n", ("log_loss",), (), 'e.csv:2: the column "probability" is 1.5, expected'),
        (b"id,truth,probability\n1,a,.5\n", ("log_loss",), (), "e.csv:2: the truth of example \"1\" is 'a', with one"),
        (b"id,truth,probability:a\n1,b,1\n", ("log_loss",), (), 'there is no column "probability:b": add it'),
        (b"id,truth,probability:a\n1,a,.5\n", ("log_loss",), (), 'e.csv:2: the probabilities of example "1" add up'),
        (b"id,truth,prediction\n1,a,.5\n", ("log_loss",), (), 'log_loss needs a column "probability"'),
        (b"id,truth,prediction\n1,2,3\n4,5,x\n", ("squared_error",), (), 'e.csv:3: the prediction of example "4"'),
    ],
)
def test_what_cannot_be_scored_is_named(
    data: bytes, scores: tuple[str, ...], slices: tuple[str, ...], sentence: str
) -> None:
    """A column that is not there, no number, out of range or of no class is refused with file and line."""

    def score_all() -> None:
        evidence = read_evidence(data, None, "e.csv", None, scores, slices)
        for score in scores:
            evidence.scored(score)

    with pytest.raises(ReportError) as caught:
        score_all()
    assert sentence in str(caught.value)


def test_too_many_slices_are_refused() -> None:
    """A column with another value in each row is no slice."""
    data = b"id,truth,prediction\n" + b"".join(b"%d,1,1\n" % i for i in range(1001))
    with pytest.raises(ReportError, match='the column "id" has 1,001 different values, and slices may be 1,000'):
        read_evidence(data, None, "e.csv", None, slices=("id",))


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("e.csv", b"id,truth,prediction,source\n1,a,a,web\n2,b,b,\n3,a,b,web\n4,b,b,nan\n"),
        (
            "e.jsonl",
            (
                b'{"id": 1, "truth": "a", "prediction": "a", "source": "web"}\n'
                b'{"id": 2, "truth": "b", "prediction": "b", "source": null}\n'
                b'{"id": 3, "truth": "a", "prediction": "b", "source": "web"}\n'
                b'{"id": 4, "truth": "b", "prediction": "b", "source": "nan"}\n'
            ),
        ),
        (
            "left.jsonl",
            (
                b'{"id": 1, "truth": "a", "prediction": "a", "source": "web"}\n'
                b'{"id": 2, "truth": "b", "prediction": "b"}\n'
                b'{"id": 3, "truth": "a", "prediction": "b", "source": "web"}\n'
                b'{"id": 4, "truth": "b", "prediction": "b", "source": "nan"}\n'
            ),
        ),
    ],
)
def test_what_has_no_value_is_a_slice_of_its_own(file: str, data: bytes) -> None:
    """Empty, null and absent values of a slice's column are a slice; other columns may not have such."""
    evidence = read_evidence(data, None, file, None, slices=("source", "truth"))
    source, truth = evidence.sliced(("source", "truth"))
    assert [(label, places.tolist()) for label, places in source.members()] == [
        ("(empty)", [1]),
        ("nan", [3]),
        ("web", [0, 2]),
    ]
    assert [(label, places.tolist()) for label, places in truth.members()] == [("a", [0, 2]), ("b", [1, 3])]
    halved = source.at(np.array([1, 2]))
    assert [(label, places.tolist()) for label, places in halved.members()] == [("(empty)", [0]), ("web", [1])]
    with pytest.raises(ReportError, match='no column "place"'):
        evidence.sliced(("place",))
    with pytest.raises(ReportError, match='column "source"'):
        read_evidence(data, None, file, None, ("source",), ("source",))


def test_parquet_may_have_no_value_in_a_slice() -> None:
    """A null of a slice's column is a slice, elsewhere it is refused."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is no dependency")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is no dependency")
    out = io.BytesIO()
    rows = {"id": ["1", "2"], "truth": ["a", "b"], "prediction": ["a", "b"], "size": [None, 3]}
    parquet.write_table(pa.table(rows), out)
    (sizes,) = read_evidence(out.getvalue(), None, "e", None, slices=("size",)).sliced(("size",))
    assert sizes.labels == ("(empty)", "3")
    with pytest.raises(ReportError, match='e, row 1: the column "size" is empty'):
        read_evidence(out.getvalue(), None, "e", None, ("size",))


def test_a_slice_column_may_stand_in_the_truth() -> None:
    """Where neither file has it the file and the nearest column are named."""
    given_, asked = b"id,prediction\n1,a\n2,b\n", b"id,truth,place\n1,a,x\n2,b,y\n"
    evidence = read_evidence(given_, asked, "p.csv", "t.csv", slices=("place",))
    assert evidence.slices["place"].labels == ("x", "y")
    with pytest.raises(ReportError, match=r't\.csv:1: there is no column "palce": rename "place"'):
        read_evidence(given_, asked, "p.csv", "t.csv", slices=("palce",))
    with pytest.raises(ReportError, match=r'neither p\.csv nor t\.csv has the column "palce"'):
        read_evidence(given_, read_truth(asked, "t.csv"), "p.csv", None, slices=("palce",))


def test_log_loss_is_of_the_probability_of_the_truth() -> None:
    """With one column it is that of the truth 1, else there is a column for each class; 0 counts as 1e-15."""
    binary = read_evidence(b"id,truth,probability\n1,1,.25\n2,0,.25\n3,1,0\n", None, "e.csv", None, ("log_loss",))
    found = binary.scored("log_loss")
    assert found.own.tolist() == pytest.approx([-math.log(0.25), -math.log(0.75), -math.log(1e-15)])
    assert (found.values == -found.own).all()
    assert found.sign == -1
    data = b"id,truth,probability:1,probability:cat\n1,1.0,.25,.75\n2,cat,.2,.8\n"
    classes = read_evidence(data, None, "e.csv", None, ("log_loss",)).scored("log_loss")
    assert classes.own.tolist() == pytest.approx([-math.log(0.25), -math.log(0.8)])


# --- two models ----------------------------------------------------------------------------------------------------


def test_two_models_are_paired_by_id() -> None:
    """Scores of the examples of both are in the same order; what only one has, or has another truth, is counted."""
    new = Evidence(("1", "2", "3", "5"), ("a", "b", "c", "e"), ("a", "x", "c", "e"))
    old = Evidence(("4", "3", "2", "1"), ("d", "other", "b", "a"), ("d", "c", "b", "x"))
    pairs = paired(new, old)
    assert (len(pairs), pairs.only_new, pairs.only_old, pairs.relabelled) == (2, 1, 1, 1)
    assert not pairs.same_test_set
    mine, theirs = pairs.scores(new.scored("correct"), old.scored("correct"))
    assert (mine.tolist(), theirs.tolist()) == ([1.0, 0.0], [0.0, 1.0])
    same = paired(new, new)
    assert (len(same), same.only_new, same.only_old, same.relabelled, same.same_test_set) == (4, 0, 0, 0, True)
    assert len(paired(new, Evidence(("9",), ("a",), ("a",)))) == 0


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
    assert evidence.scored("correct").own.tolist() == [1, 0, 0]
    assert evidence.scored("absolute_error").own.tolist() == [0, 2, 4]
    assert evidence.scored("squared_error").own.tolist() == [0, 4, 16]


@pytest.mark.parametrize("text", ["cat", "inf", "1e400", "1_0", " 1"])
@pytest.mark.parametrize("kind", ["absolute_error", "squared_error"])
def test_errors_need_finite_numbers(text: str, kind: str) -> None:
    """A text where a number is needed is refused with the example's id and the column."""
    with pytest.raises(ReportError, match='truth of example "b"'):
        Evidence(("a", "b"), ("1", text), ("1", "1")).scored(kind)
    with pytest.raises(ReportError, match='prediction of example "b"'):
        Evidence(("a", "b"), ("1", "1"), ("1", text)).scored(kind)


@pytest.mark.parametrize(("prediction", "kind"), [("-1e308", "absolute_error"), ("1e200", "squared_error")])
def test_an_error_beyond_counting_is_refused(prediction: str, kind: str) -> None:
    """A difference that is no finite number is refused rather than averaged."""
    with pytest.raises(ReportError, match='error of example "a" is too large'):
        Evidence(("a",), ("1e308",), (prediction,)).scored(kind)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), seed=st.integers())
def test_the_mean_does_not_depend_on_the_order(values: list[float], seed: int) -> None:
    """Adding up loses nothing, so any order gives the same mean, between the least and the greatest."""
    turned = values.copy()
    random.Random(seed).shuffle(turned)  # noqa: S311 (no secret)
    assert mean(values) == mean(turned)
    assert min(values) - 1e-9 <= mean(values) <= max(values) + 1e-9


def test_the_truth_says_which_slice_an_example_is_in() -> None:
    """A column that both files have is that of the truths: a model does not choose its own slices."""
    given_, asked = b"id,prediction,place\n1,a,good\n2,b,good\n", b"id,truth,place\n1,a,x\n2,b,y\n"
    assert read_evidence(given_, asked, "p.csv", "t.csv", slices=("place",)).slices["place"].labels == ("x", "y")
    known = read_truth(asked, "t.csv", spare=("place",))
    assert read_evidence(given_, known, "p.csv", None, slices=("place",)).slices["place"].labels == ("x", "y")
