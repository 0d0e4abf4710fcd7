"""Evidence in batches: drawn in an order nobody chooses, judged validly after each, and stopped when it stands."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.batches import Drawn, drawn, joined, judge_batches, unanswered
from penstock.comparisons import Champion
from penstock.errors import ReportError
from penstock.evidence import Evidence, read_evidence, read_truth
from penstock.gates import Verdict
from penstock.pipelines import Gate

WHOLE = 5000
TRUTH = "id,truth\n" + "".join(f"{n},a\n" for n in range(WHOLE))


def asked(batch: int = 200, at_most: int | None = None, truth: str = TRUTH) -> Drawn:
    return drawn(read_truth(truth.encode(), "truth.csv"), batch, at_most)


def answers(ids: tuple[str, ...], wrong: frozenset[str] = frozenset(), truth: str = TRUTH) -> Evidence:
    rows = "id,prediction\n" + "".join(f"{one},{'b' if one in wrong else 'a'}\n" for one in ids)
    return read_evidence(rows.encode(), truth.encode(), "p.csv", "truth.csv")


def some(share: float, seed: int = 0) -> frozenset[str]:
    chosen = np.random.default_rng(seed).permutation(WHOLE)[: round(share * WHOLE)]
    return frozenset(map(str, chosen.tolist()))


def gate(**rule: Any) -> Gate:
    return Gate.model_validate({"name": "g", "evidence": "evaluate", **rule})


def judge(gate: Gate, new: Evidence | None, old: Evidence | None = None, by: Drawn | None = None) -> Verdict:
    return judge_batches(gate, new, by or asked(), Champion("1.4", "theirs", old), "mine")


# --- what is asked -------------------------------------------------------------------------------------------------


def test_the_order_is_the_test_sets() -> None:
    """The order of the rows does not matter, a truth does, and at_most takes the first of the same order."""
    rows = TRUTH.splitlines()[1:]
    turned = "\n".join([TRUTH.splitlines()[0], *rows[::-1]])
    assert asked().ids == asked(truth=turned).ids
    assert asked().ids != asked(truth=TRUTH.replace("7,a", "7,b")).ids
    assert asked(at_most=300).ids == asked().ids[:300]
    assert sorted(asked().ids, key=int) == [str(n) for n in range(WHOLE)]


def test_the_last_batch_is_what_is_left() -> None:
    """Batches follow each other without a gap, and there is none after the last."""
    by = asked(batch=200, at_most=450)
    assert [len(by.batches(n)) for n in (0, 200, 400, 450)] == [200, 200, 50, 0]
    assert by.batches(0) + by.batches(200) + by.batches(400) == by.ids


@pytest.mark.parametrize("name", ['"a\nb"', "x" * 80])
def test_an_id_is_one_short_line(name: str) -> None:
    """An id with a line break in it, or a very long one, is refused with its line."""
    with pytest.raises(ReportError, match=r"truth.csv:3: the id is asked for as one line"):
        asked(truth=f"id,truth\n1,a\n{name},a\n")


@given(st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=4), min_size=1, max_size=4), st.booleans())
def test_files_are_joined(parts: list[list[int]], last: bool) -> None:
    """The rows of all batches stand in one file under one header, whether or not a file ends with a line break."""
    texts = ["id,prediction\n" + "\n".join(f"{n},a" for n in part) + "\n" * last for part in parts]
    rows = joined([text.encode() for text in texts], "p.csv").decode().splitlines()
    assert rows == ["id,prediction", *(f"{n},a" for part in parts for n in part)]


def test_json_lines_are_joined_as_they_are() -> None:
    """They have no header; and CSV files of different columns are refused."""
    assert joined([b'{"id": 1}', b'{"id": 2}\n'], "p.jsonl") == b'{"id": 1}\n{"id": 2}\n'
    with pytest.raises(ReportError, match="batch 2 has other columns than the first"):
        joined([b"id,prediction\n1,a\n", b"prediction,id\na,2\n"], "p.csv")


def test_who_was_not_answered_is_named() -> None:
    """Ids of the batch without a prediction are told in their order."""
    ids = asked().batches(0)
    assert unanswered(answers(ids[2:]), ids) == list(ids[:2])


# --- what is decided -----------------------------------------------------------------------------------------------


def test_a_clear_level_is_decided_early() -> None:
    """A model of 95 % is shown to be above 85 % with the first batches, and what was spared is told."""
    by, wrong = asked(), some(0.05)
    found = judge(gate(at_least=0.85, confidence=0.95), answers(by.ids[:400], wrong))
    assert found.verdict == "pass"
    assert found.chart is not None
    assert (found.chart.n, found.chart.least, found.chart.method) == (200, 0.85, "betting")
    assert found.chart.low > 0.85
    assert "on the first 200 of 5,000 examples in drawn order" in found.reasons[0]
    assert found.reasons[1] == "4,800 examples were spared"


@pytest.mark.parametrize(("share", "verdict"), [(0.05, "fail"), (0.30, "pass")])
def test_a_level_that_is_too_high(share: float, verdict: str) -> None:
    """at_most is judged the other way round, with the same examples."""
    found = judge(gate(at_most=0.85, confidence=0.95), answers(asked().ids[:1000], some(share)))
    assert (found.verdict, found.chart is not None and found.chart.most) == (verdict, 0.85)


def test_a_worse_model_fails_before_the_end() -> None:
    """15 points worse than the champion is seen soon; what it answered beyond is not looked at."""
    found = judge(gate(not_worse_than="champion", margin=0.03), answers(asked().ids, some(0.2)), answers(asked().ids))
    assert found.verdict == "fail"
    assert found.chart is not None
    assert found.chart.n < 1000
    assert found.chart.high < -0.03
    assert "points worse than 1.4 on the first" in found.reasons[0]
    assert "are on the forbidden side of -3 points" in found.reasons[0]


def test_too_little_is_inconclusive() -> None:
    """Nothing stands after one batch of equal models; after all that may be asked a larger at_most is named."""
    rule = gate(not_worse_than="champion", margin=0.01)
    by = asked(at_most=400)
    new, old = answers(by.ids, some(0.1, 1)), answers(by.ids, some(0.1, 2))
    early = judge(rule, answers(by.ids[:200], some(0.1, 1)), old, by)
    assert (early.verdict, "larger" in early.reasons[0]) == ("inconclusive", False)
    assert judge(rule, new, old, by).reasons[0].endswith("inconclusive; a larger at_most may decide")


def test_nothing_to_compare_with() -> None:
    """As for evidence in one piece: a warning without a champion, a pass for the same package, else inconclusive."""
    rule, new = gate(not_worse_than="champion", margin=0.01), answers(asked().ids[:200])
    assert judge_batches(rule, new, asked(), None, "mine").reasons[0].startswith("warning")
    assert judge_batches(rule, new, asked(), Champion("1.4", "mine", None), "mine").verdict == "pass"
    assert judge(rule, new).verdict == "inconclusive"
    assert judge(rule, None).verdict == "errored"
    assert judge(rule, new, answers(asked().ids[200:400])).verdict == "inconclusive"


def test_the_promise_holds_whenever_one_stops() -> None:
    """Looked at after every batch, equal models are taken for better in at most 5 % of 100 test sets."""
    rule, draw = gate(better_than="champion"), np.random.default_rng(1)
    wrongly = 0
    for seed in range(100):
        truth = "id,truth\n" + "".join(f"{seed}-{n},a\n" for n in range(400))
        by = asked(batch=40, truth=truth)
        pair = [answers(by.ids, frozenset(n for n in by.ids if draw.random() < 0.2), truth) for _ in range(2)]
        wrongly += judge(rule, pair[0], pair[1], by).verdict == "pass"
    assert wrongly <= 10
