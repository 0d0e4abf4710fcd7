"""Two models on the same examples: what flipped, where it hurts, and what cannot be told."""

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.columns import column_names
from penstock.errors import ReportError
from penstock.evidence import Evidence, read_evidence
from penstock.flips import MAX_EXAMPLES, Flips, flips, guessed_score, judged, slices_of
from penstock.pipelines import Gate

WORDS = st.sampled_from(["a", "b", "c"])
ROWS = st.dictionaries(st.text("0123456789", min_size=1, max_size=3), st.tuples(WORDS, WORDS, WORDS), min_size=1)


def answered(truth: Sequence[str], predictions: Sequence[str]) -> Evidence:
    """Evidence of examples that are numbered from 100."""
    return Evidence([str(100 + n) for n in range(len(truth))], truth, predictions)


def test_flips_are_counted_and_shown_worst_first() -> None:
    """Newly wrong ones come before newly right ones; what both have wrong, each in its own way, is no flip."""
    truth = ["a", "b", "c", "a"]
    found = flips("evaluate", answered(truth, ["a", "x", "y", "a"]), answered(truth, ["x", "b", "z", "a"]), "correct")
    assert (found.better, found.worse, found.n, found.same_test_set) == (1, 1, 4, True)
    assert [(e.id, e.truth, e.a, e.b, e.score_a, e.score_b) for e in found.examples] == [
        ("101", "b", "b", "x", 1.0, 0.0),
        ("100", "a", "x", "a", 0.0, 1.0),
    ]
    assert found.gain is not None
    assert (found.gain.estimate, found.gain.n, found.gain.discordant) == (0.0, 4, 2)


def test_large_changes_of_a_numeric_score_come_first() -> None:
    """Errors keep their own sign and are better low; the largest change is first, whichever way it went."""
    truth = ["1", "2", "3", "4"]
    found = flips(
        "evaluate",
        answered(truth, ["1.5", "2", "13", "4"]),
        answered(truth, ["1", "6", "3", "4"]),
        "absolute_error",
    )
    assert [(e.id, e.score_a, e.score_b) for e in found.examples] == [
        ("102", 0.0, 10.0),
        ("101", 4.0, 0.0),
        ("100", 0.0, 0.5),
    ]
    assert (found.lower_is_better, found.better, found.worse, found.a, found.b) == (True, 1, 2, 1.0, 2.625)
    assert found.gain is not None
    assert found.gain.estimate == -1.625


def test_a_single_numeric_score_has_no_interval() -> None:
    """One example is compared, and nothing is said of more than it."""
    found = flips("evaluate", answered(["1"], ["3"]), answered(["1"], ["1"]), "absolute_error")
    assert (found.gain, found.worse) == (None, 1)


def test_only_common_examples_are_held_against_each_other() -> None:
    """What one model lacks, or what has another truth, is counted and left out; nothing in common is refused."""
    new = Evidence(["1", "2", "3"], ["a", "b", "c"], ["a", "b", "c"])
    old = Evidence(["2", "3", "4", "5"], ["b", "x", "d", "e"], ["b", "x", "d", "e"])
    found = flips("evaluate", new, old, "correct")
    assert (found.n, found.only_a, found.only_b, found.relabelled, found.same_test_set) == (1, 2, 1, 1, False)
    with pytest.raises(ReportError, match="no example is in both"):
        flips("evaluate", new, Evidence(["9"], ["a"], ["a"]), "correct")


def test_the_slice_that_got_worse_is_first_and_only_what_is_sure_is_called_so() -> None:
    """A slice that lost much is shown to be worse; one that lost a single example among many slices is not."""
    truth = ["a"] * 100 + ["b"] * 100 + ["c"] * 4
    new = ["x"] * 40 + ["a"] * 60 + ["b"] * 100 + ["x"] + ["c"] * 3
    found = flips("evaluate", answered(truth, new), answered(truth, truth), "correct")
    assert [(s.column, s.label, s.n, s.a, s.b, s.shown) for s in found.slices] == [
        ("truth", "a", 100, 1.0, 0.6, "worse"),
        ("truth", "c", 4, 1.0, 0.75, None),
        ("truth", "b", 100, 1.0, 1.0, None),
    ]
    back = flips("evaluate", answered(truth, truth), answered(truth, new), "correct")
    assert [(s.label, s.shown) for s in back.slices] == [("b", None), ("c", None), ("a", "better")]


def test_equal_models_are_rarely_called_worse_anywhere() -> None:
    """Of 200 comparisons of two equally good models in 12 slices, no more than chance allows name a slice."""
    draw = np.random.default_rng(5)
    truth = ["abcdefghijkl"[n % 12] for n in range(360)]

    def model() -> Evidence:
        wrong = draw.random(360) < 0.1
        return answered(truth, ["x" if bad else good for bad, good in zip(wrong, truth, strict=True)])

    named = sum(any(s.shown for s in flips("e", model(), model(), "correct").slices) for _ in range(200))
    assert named <= 30  # each direction errs in at most 5 %: 20 of 200, with room for luck


@given(ROWS)
def test_every_example_is_in_one_slice_of_each_column(rows: dict[str, tuple[str, str, str]]) -> None:
    """Slices of a column add up to all examples, and flips to the difference of the means."""
    data = "\n".join(["id,truth,prediction,kind", *(f"{i},{t},{p},{k}" for i, (t, p, k) in rows.items())]).encode()
    new = read_evidence(data, None, "e.csv", None)
    old = Evidence(list(rows), [t for t, _, _ in rows.values()], ["a"] * len(rows))
    columns, notes = slices_of(new, [("e.csv", data)])
    found = flips("e", new, old, "correct", columns)
    for name in {s.column for s in found.slices}:
        assert sum(s.n for s in found.slices if s.column == name) == len(rows)
    assert round((found.b - found.a) * found.n) == found.better - found.worse == -_losses(found)
    assert notes == ()


def _losses(found: Flips) -> int:
    return sum(1 if e.score_b < e.score_a else -1 for e in found.examples)


# --- the columns ---------------------------------------------------------------------------------------------------

TRUTH = b"id,truth,region,size\n1,a,north,3\n2,b,south,4\n3,a,north,5\n"


def test_texts_of_few_values_make_slices() -> None:
    """Columns of either file do, wherever their rows stand; numbers and ids do not, unless a gate names them."""
    given_ = b"id,prediction,mode,note\n3,a,slow,third\n1,a,fast,first\n2,b,fast,second\n"
    evidence = read_evidence(given_, TRUTH, "p.csv", "t.csv")
    files = [("p.csv", given_), ("t.csv", TRUTH)]
    columns, notes = slices_of(evidence, files)
    assert {c.name: [c.labels[code] for code in c.codes] for c in columns} == {
        "mode": ["fast", "fast", "slow"],
        "note": ["first", "second", "third"],
        "region": ["north", "south", "north"],
    }
    assert notes == ()
    assert [c.name for c in slices_of(evidence, files, ("size",))[0]] == ["mode", "note", "region", "size"]


def test_many_values_make_no_slices() -> None:
    """A column that has another text in each of many rows tells of no group; nor does one that is always the same."""
    rows = "\n".join(f"{n},a,a,text {n},same" for n in range(100))
    data = f"id,truth,prediction,comment,always\n{rows}\n".encode()
    evidence = read_evidence(data, None, "e.csv", None)
    assert slices_of(evidence, [("e.csv", data)]) == ((), ())
    assert [c.name for c in slices_of(evidence, [("e.csv", data)], ("comment",))[0]] == ["comment"]
    truth = [f"t{n}" for n in range(100)]
    assert flips("e", answered(truth, truth), answered(truth, truth), "correct").slices == ()


def test_what_has_no_value_is_a_slice_of_its_own() -> None:
    """Gaps in a column are counted together; probabilities make no slices at all."""
    data = b"id,truth,prediction,region,size,probability:a\n1,a,a,north,1,high\n2,b,b,,2,low\n3,a,a,north,,low\n"
    evidence = read_evidence(data, None, "e.csv", None)
    (region,), notes = slices_of(evidence, [("e.csv", data)])
    assert ([region.labels[code] for code in region.codes], notes) == (["north", "(empty)", "north"], ())
    assert slices_of(evidence, [("e.csv", b"id,truth,prediction\n1,a,a\n2,b,b\n3,a,a\n")]) == ((), ())


def test_a_column_that_cannot_be_read_is_noted_and_the_others_stay() -> None:
    """One column that holds lists makes no slices, in one sentence that says where."""
    rows = [
        {"id": n, "truth": "a", "prediction": "a", "tags": ["x"], "mode": "fast" if n % 2 else "slow"} for n in range(4)
    ]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    columns, notes = slices_of(read_evidence(data, None, "e.jsonl", None), [("e.jsonl", data)])
    assert [c.name for c in columns] == ["mode"]
    (note,) = notes
    assert note.startswith('the column "tags" makes no slices: e.jsonl:1: "tags" is a list')


def test_names_of_columns_are_read_from_every_format() -> None:
    """The header of a CSV file, quoted or not, and the names of the first row of JSON Lines."""
    assert column_names(b'\n"id", truth,"a,b"\n1,2,3\n', "e.csv") == ("id", "truth", "a,b")
    assert column_names(b'\n{"id": 1, "truth": 2}\n', "e.jsonl") == ("id", "truth")
    assert column_names(b"\n\n", "e.csv") == ()
    with pytest.raises(ReportError, match=r"e\.jsonl:1: this is no JSON"):
        column_names(b"id,truth\n", "e.jsonl")


def test_names_of_columns_are_read_from_parquet() -> None:
    """Those of its schema."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is no dependency")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is no dependency")
    out = io.BytesIO()
    parquet.write_table(pa.table({"id": [1], "truth": ["a"]}), out)
    assert column_names(out.getvalue(), "e.parquet") == ("id", "truth")


# --- what gates do with evidence -----------------------------------------------------------------------------------


def test_gates_name_scores_and_slices_and_may_hide() -> None:
    """Scores of all gates of a step, each once, also in gates made of others; one may tell pass or fail only."""
    gates: dict[str, dict[str, Any]] = {
        "one": {"metric": "train.accuracy", "at_least": 0.9},
        "two": {"evidence": "evaluate", "at_least": 0.9},
        "three": {"evidence": "evaluate", "score": "log_loss", "at_most": 1, "slices": {"by": ["region"]}},
        "four": {"any_of": [{"evidence": "other", "at_least": 0.5, "confidence": 0.9, "slices": {"by": ["mode"]}}]},
        "five": {"evidence": "evaluate", "same_as": "trained"},
        "six": {"evidence": "third", "at_least": 0.5, "confidence": 0.9, "reuse": "enforce"},
    }
    found = judged([Gate.model_validate({"name": name, **gate}) for name, gate in gates.items()])
    assert found["evaluate"].scores == ("correct", "log_loss")
    assert (found["evaluate"].columns, found["evaluate"].enforced_by) == (("region",), None)
    assert (found["other"].columns, found["third"].enforced_by) == (("mode",), "six")
    assert set(found) == {"evaluate", "other", "third"}


def test_the_score_of_evidence_without_a_gate_is_what_fits() -> None:
    """Many numbers are a quantity, whose errors count; anything else is right or wrong."""
    numbers = [str(n / 3) for n in range(60)]
    assert guessed_score(answered(numbers, numbers)) == "absolute_error"
    assert guessed_score(answered(["1", "2"] * 30, ["1", "2"] * 30)) == "correct"
    words = [f"w{n}" for n in range(60)]
    assert guessed_score(answered(words, words)) == "correct"


def test_so_many_examples_are_kept() -> None:
    """However many flipped, a bounded number is kept, and all are counted."""
    truth = ["a"] * (MAX_EXAMPLES + 5)
    found = flips("e", answered(truth, ["b"] * len(truth)), answered(truth, truth), "correct")
    assert (found.worse, len(found.examples)) == (MAX_EXAMPLES + 5, MAX_EXAMPLES)
    assert found.as_json()["gain"]["n"] == len(truth)
