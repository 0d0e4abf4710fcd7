"""Gates on coverage, on benchmarks and on the model's files."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.coverages import Coverage, FileCoverage
from penstock.gates import Verdict
from penstock.measures import Rival, Timing, judge_benchmark, judge_change, judge_coverage, judge_model
from penstock.models import Inspection, Model, model_of
from penstock.pipelines import Gate


def gate(**keys: Any) -> Gate:
    return Gate.model_validate({"name": "g", **keys})


def said(found: Verdict) -> tuple[str, tuple[str, ...]]:
    return found.verdict, found.reasons


# --- coverage ------------------------------------------------------------------------------------------------------


def report(ran: int, missed: int, path: str = "src/a.py") -> Coverage:
    return Coverage({path: FileCoverage(frozenset(range(1, ran + 1)), frozenset(range(ran + 1, ran + missed + 1)))})


@pytest.mark.parametrize(
    ("ran", "missed", "least", "verdict", "reason"),
    [
        (80, 20, 0.8, "pass", "80 % is at least 80 %: 80 of 100 lines ran"),
        (79, 21, "80%", "fail", "79 % is below 80 %: 79 of 100 lines ran, 1 line fewer than needed"),
        (7999, 2001, 0.8, "fail", "79.99 % is below 80 %: 7,999 of 10,000 lines ran, 1 line fewer than needed"),
        (7, 3, 0.7, "pass", "70 % is at least 70 %: 7 of 10 lines ran"),
        (1, 0, 1, "pass", "100 % is at least 100 %: 1 of 1 line ran"),
        (0, 5, 0, "pass", "0 % is at least 0 %: 0 of 5 lines ran"),
        (0, 5, 0.5, "fail", "0 % is below 50 %: 0 of 5 lines ran, 3 lines fewer than needed"),
    ],
)
def test_lines_that_ran_are_held_against_a_share(ran: int, missed: int, least: Any, verdict: str, reason: str) -> None:
    """Counted, not rounded, with how many are lacking."""
    found = judge_coverage(gate(coverage="unit", at_least=least), report(ran, missed))
    assert said(found) == (verdict, (reason,))
    assert found.value == ran / (ran + missed)


def test_without_lines_there_is_no_verdict() -> None:
    """No report is no pass, nor is a report of nothing."""
    sentences = ("step unit left no coverage to judge", "the coverage of step unit counts no line of code")
    for nothing, sentence in zip((None, report(0, 0)), sentences, strict=True):
        for found in (
            judge_coverage(gate(coverage="unit", at_least=0.8), nothing),
            judge_change(gate(coverage="unit", of="change", at_least=0.8), nothing, {}, ()),
        ):
            assert said(found) == ("errored", (sentence,))


def change(least: Any, changed: Mapping[str, list[range]], coverage: Coverage | None = None) -> Verdict:
    paths = ["src/a.py", "src/new.py", "tests/test_a.py", "README.md"]
    return judge_change(gate(coverage="unit", of="change", at_least=least), coverage or report(10, 10), changed, paths)


def test_only_changed_lines_with_code_count() -> None:
    """What did not run is named by file and line, neighbours together."""
    changed = {"src/a.py": [range(9, 14), range(17, 18), range(20, 30)], "tests/test_a.py": [range(1, 50)]}
    found = change(0.9, changed)
    assert said(found) == (
        "fail",
        (
            "28.57 % is below 90 %: 2 of 7 changed lines with code ran, 5 lines fewer than needed",
            "not covered: src/a.py:11-13, src/a.py:17, src/a.py:20",
        ),
    )
    assert found.value == 2 / 7
    assert said(change(0.2, changed))[0] == "pass"
    assert said(change(1, {"src/a.py": [range(1, 3)]})) == (
        "pass",
        ("100 % is at least 100 %: 2 of 2 changed lines with code ran",),
    )


def test_a_source_that_the_report_forgot_is_not_covered() -> None:
    """All of its changed lines count, and it is named; what only lost lines has none."""
    changed = {"src/a.py": [range(1, 3)], "src/new.py": [range(1, 3), range(7, 8)], "README.md": [range(1, 9)]}
    assert said(change(0.9, changed)) == (
        "fail",
        (
            "40 % is below 90 %: 2 of 5 changed lines with code ran, 3 lines fewer than needed",
            "not covered: src/new.py:1-2, src/new.py:7",
            "not in the report at all: src/new.py",
        ),
    )
    nothing = "no changed line holds code: there is nothing to cover"
    assert said(change(0.9, {"src/new.py": [], "README.md": [range(1, 9)]})) == ("pass", (nothing,))
    assert said(change(0.9, {"src/a.py": [range(30, 40)]})) == ("pass", (nothing,))
    assert said(change(0.9, {})) == ("pass", (nothing,))


def test_only_the_first_places_are_named() -> None:
    """A report of a hundred lines is no help."""
    scattered = Coverage({"src/a.py": FileCoverage(frozenset({1}), frozenset(range(2, 40, 2)))})
    found = change(0.9, {"src/a.py": [range(1, 50)]}, scattered)
    places = ", ".join(f"src/a.py:{n}" for n in range(2, 12, 2))
    assert found.reasons[1] == f"not covered: {places} and 14 more"


@given(ran=st.integers(0, 300), missed=st.integers(0, 300), least=st.integers(0, 100))
@settings(deadline=None)
def test_a_verdict_never_contradicts_its_numbers(ran: int, missed: int, least: int) -> None:
    """What is shown as below is below, and as many lines more would pass as are said to be lacking."""
    if not ran + missed:
        return
    found = judge_coverage(gate(coverage="unit", at_least=least / 100), report(ran, missed))
    assert (found.verdict == "pass") == (100 * ran >= least * (ran + missed))
    shown = float(found.reasons[0].partition(" %")[0])
    assert (shown >= least) == (found.verdict == "pass")
    if found.verdict == "fail":
        lacking = int(found.reasons[0].split(", ")[-1].partition(" ")[0])
        assert 100 * (ran + lacking) >= least * (ran + missed) > 100 * (ran + lacking - 1)


# --- benchmarks ----------------------------------------------------------------------------------------------------

HERE = {"machine": "x86_64", "processor": "Xeon 6", "cpus": 2, "gpus": ["t4", "t4"]}
WORDS = "branch main (1.2)"


def rounds(center: float, count: int = 20, spread: float = 0.02, seed: int = 1) -> Timing:
    drawn = center * np.random.default_rng(seed).lognormal(0, spread, count)
    return Timing(float(np.median(drawn)), tuple(drawn.tolist()), HERE)


def benchmark(**keys: Any) -> Gate:
    return gate(benchmark="bench.predict", ratio_to="branch:main", **keys)


def test_rounds_decide_by_an_interval() -> None:
    """Pass, fail or inconclusive, with the bounds and what would decide."""
    old = rounds(10)
    passed = judge_benchmark(benchmark(at_most=1.1), rounds(10, 30, seed=2), Rival(WORDS, old))
    assert said(passed)[0] == "pass"
    assert passed.reasons[0].startswith("0.997")
    assert " times branch main (1.2) by the medians of 30 and 20 rounds; its 95 % bounds " in passed.reasons[0]
    assert passed.reasons[0].endswith(" are not above 1.1: pass")
    failed = judge_benchmark(benchmark(at_most=1.1, confidence=0.99), rounds(13, seed=2), Rival(WORDS, old))
    assert failed.verdict == "fail"
    assert "its 99 % bounds" in failed.reasons[0]
    assert failed.reasons[0].endswith(" are above 1.1: fail")
    open_still = judge_benchmark(benchmark(at_most=1.1), rounds(10.9, 6, 0.2, 2), Rival(WORDS, old))
    assert open_still.verdict == "inconclusive"
    assert " do not exclude a ratio above 1.1: inconclusive; about " in open_still.reasons[0]
    assert open_still.reasons[0].endswith(" rounds would decide")


def test_the_chart_shows_the_ratio_and_its_bounds() -> None:
    """On the axis of the rule, with the number of rounds."""
    found = judge_benchmark(benchmark(at_least=0.9), rounds(10, 30, seed=2), Rival(WORDS, rounds(10)))
    assert found.verdict == "pass"
    assert found.reasons[0].endswith(" are not below 0.9: pass")
    chart = found.chart
    assert chart is not None
    assert (chart.kind, chart.score) == ("ratio", "bench.predict")
    assert (chart.kind, chart.least, chart.most, chart.n, chart.confidence) == ("ratio", 0.9, None, 20, 0.95)
    assert chart.low <= chart.estimate <= chart.high
    assert found.value == chart.estimate


def test_single_numbers_are_a_plain_ratio() -> None:
    """Unless the gate asks how sure it is, which one number cannot tell."""
    new, old = Timing(12.5, (), HERE), Timing(10.0, (), HERE)
    assert said(judge_benchmark(benchmark(at_most=1.3), new, Rival(WORDS, old))) == (
        "pass",
        ("1.25 is at most 1.3: 12.5 against 10 of branch main (1.2), without bounds, which take 5 rounds of both",),
    )
    assert said(judge_benchmark(benchmark(at_least=1.3), new, Rival(WORDS, old)))[0] == "fail"
    part = judge_benchmark(benchmark(at_most=1.3, confidence=0.99), new, Rival(WORDS, old), plain=True)
    assert part.verdict == "pass", "as a part of others it got a confidence that the file does not name"
    unsure = judge_benchmark(benchmark(at_most=1.3, confidence=0.9), rounds(10, 4), Rival(WORDS, rounds(10)))
    assert unsure.verdict == "inconclusive"
    assert "has no bounds, and the gate asks for 90 %: write 5 or more rounds of the benchmark" in unsure.reasons[0]


def test_other_hardware_is_never_compared() -> None:
    """Both are named, whatever differs; where one was not kept, nothing is known."""
    old = Timing(10.0, (), {**HERE, "cpus": 64, "gpus": []})
    found = judge_benchmark(benchmark(at_most=1.1), Timing(10.0, (), HERE), Rival(WORDS, old))
    reason = "this run was on 2 × Xeon 6 with 2 × t4, branch main (1.2) on 64 × Xeon 6"
    assert said(found) == ("inconclusive", (f"{reason}: speeds are compared on the same hardware only",))
    plain = {"machine": "arm64", "processor": "", "cpus": 4}
    words = judge_benchmark(benchmark(at_most=1), Timing(1.0, (), plain), Rival(WORDS, Timing(1.0, (), {"x": 1})))
    assert words.reasons[0].startswith("this run was on 4 × arm64, branch main (1.2) on ? × an unknown processor:")
    for ours, theirs, whose in ((HERE, None, WORDS), (None, HERE, "this run"), ({}, {}, "this run")):
        lost = judge_benchmark(benchmark(at_most=1), Timing(1.0, (), ours), Rival(WORDS, Timing(1.0, (), theirs)))
        assert said(lost)[0] == "inconclusive"
        assert lost.reasons[0].startswith(f"the hardware of {whose} was not kept")


def test_what_is_lacking_is_told() -> None:
    """No such benchmark is errored, no baseline a warning or a fail, a baseline without it inconclusive."""
    rule, new = benchmark(at_most=1.1), Timing(3.0, (), HERE)
    assert said(judge_benchmark(rule, None, None, "there is no benchmark predict")) == (
        "errored",
        ("there is no benchmark predict",),
    )
    first = judge_benchmark(rule, new, None, lacking="there is no run of branch main yet")
    assert (first.verdict, first.value) == ("pass", None)
    assert "there is no run of branch main yet" in first.reasons[0]
    assert judge_benchmark(benchmark(at_most=1.1, required=True), new, None).verdict == "fail"
    assert said(judge_benchmark(rule, new, Rival(WORDS, None))) == (
        "inconclusive",
        ("branch main (1.2) has no such benchmark, so there is nothing to compare with",),
    )


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_ratio_takes_numbers_above_0(low: float) -> None:
    """On both sides, in every round."""
    many = (1.0,) * 9
    for new, old in ((Timing(low, (), HERE), Timing(1.0, (), HERE)), (rounds(1), Timing(1.0, (*many, low), HERE))):
        found = judge_benchmark(benchmark(at_most=1.1), new, Rival(WORDS, old))
        assert found.verdict == "errored"
        assert "a ratio takes numbers above 0" in found.reasons[0]


# --- the model's files ---------------------------------------------------------------------------------------------

SAFE = Inspection("safetensors", 120_000_000, 30_000_000)
MODEL = model_of({"model/a.safetensors": SAFE, "model/config.json": Inspection("json", 3_456)})


@pytest.mark.parametrize(
    ("keys", "verdict", "reason"),
    [
        ({"model": "size", "at_most": "200MB"}, "pass", "120 MB is at most 200 MB: 2 files"),
        ({"model": "size", "at_most": 120_000_000}, "fail", "120.003 MB is above 120 MB: 2 files"),
        ({"model": "size", "at_most": "100MiB"}, "fail", "120 MB is above 104.9 MB: 2 files"),
        ({"model": "size", "within": [1, 5e12]}, "pass", "120 MB is within 1 bytes to 5 TB: 2 files"),
        ({"model": "size", "equals": 5}, "fail", "120 MB does not equal 5 bytes: 2 files"),
        (
            {"model": "parameters", "at_most": 1_000_000},
            "fail",
            "30,000,000 is above 1,000,000: the numbers in the tensors of 1 file",
        ),
        (
            {"model": "parameters", "equals": 30_000_000},
            "pass",
            "30,000,000 equals 30,000,000: the numbers in the tensors of 1 file",
        ),
        (
            {"model": "parameters", "at_least": 1},
            "pass",
            "30,000,000 is at least 1: the numbers in the tensors of 1 file",
        ),
        ({"model": "format", "one_of": ["onnx", "safetensors"]}, "pass", "1 file of format safetensors"),
        ({"model": "format", "one_of": ["onnx"]}, "fail", "model/a.safetensors is safetensors, not onnx"),
        ({"model": "risks", "at_most": 0}, "pass", "0 is at most 0: loading the model only puts data together"),
    ],
)
def test_a_model_is_held_against_its_rule(keys: dict[str, Any], verdict: str, reason: str) -> None:
    """Its size in units that can be read, its parameters, its format and its risks."""
    assert said(judge_model(gate(**keys), MODEL)) == (verdict, (reason,))


def test_numbers_are_shown_with_as_many_digits_as_it_takes() -> None:
    """A size just above its bound does not look like it."""
    for size, verdict in ((200_000_001, "fail"), (200_000_000, "pass"), (199_999_999, "pass")):
        found = judge_model(gate(model="size", at_most="200MB"), Model({"m": Inspection("onnx", size)}))
        assert found.verdict == verdict
        shown = found.reasons[0].partition(" is ")[0]
        assert (shown == "200 MB") == (size == 200_000_000)


def test_parameters_that_cannot_be_counted_are_no_pass() -> None:
    """The files are named, with why."""
    files = {"a.pkl": Inspection("pickle", 9), "b.bin": Inspection("unknown", 9, doubt="its format is not known")}
    found = judge_model(gate(model="parameters", at_most=10), Model(files))
    assert said(found) == (
        "errored",
        ("the parameters cannot be counted without loading a.pkl (pickle), b.bin (its format is not known)",),
    )


def test_risks_are_named_and_doubts_are_no_pass() -> None:
    """What is known to be bad fails; what was not seen to its end is errored, though nothing was found in it."""
    evil = Inspection("pickle", 9, None, ("os.system", "builtins.eval"))
    found = judge_model(gate(model="risks", at_most=0), Model({"a.pkl": evil}))
    assert said(found) == (
        "fail",
        ("2 is above 0: loading the model could call a.pkl: os.system, a.pkl: builtins.eval",),
    )
    assert judge_model(gate(model="risks", at_most=2), Model({"a.pkl": evil})).verdict == "pass"
    doubtful = Inspection("unknown", 9, doubt="its format is not known")
    unsure = "what loading the model could do cannot be told: b.bin: its format is not known"
    assert said(judge_model(gate(model="risks", at_most=0), Model({"b.bin": doubtful}))) == ("errored", (unsure,))
    both = judge_model(gate(model="risks", at_most=2), Model({"a.pkl": evil, "b.bin": doubtful}))
    assert said(both)[0] == "errored"
    assert both.reasons[0] == unsure


def test_files_of_no_known_format_are_not_allowed() -> None:
    """They are named as such."""
    found = judge_model(gate(model="format", one_of="onnx"), Model({"b.bin": Inspection("unknown", 9)}))
    assert said(found) == ("fail", ("b.bin is of no known format, not onnx",))


def test_a_model_without_files_is_no_pass() -> None:
    """There is nothing to judge."""
    for model in (None, Model()):
        found = judge_model(gate(model="size", at_most=10), model)
        assert said(found) == ("errored", ("the package holds no model file to judge",))
