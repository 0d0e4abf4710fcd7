"""Where runs come from, and which of the numbers that a file fixes stands."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts import File, Tree, digest_of_bytes
from penstock.baselines import (
    Change,
    Origin,
    Standing,
    adopted,
    apart,
    data_digest,
    fixed_gates,
    is_data,
    leaves_numbers,
    missing,
    named,
    none_sound,
    seeds_of,
    standing,
)
from penstock.pipelines import BaselineName, Pipeline

CHANGE = Change("g", "set", 0.0, None, None, None, 1, "a", 1, "ada", 0.0)
UNIT = st.integers(0, 20).map(lambda n: n / 20)


def tree(**files: str) -> Tree:
    """Files whose names have `__` for a slash and `_` for a dot."""
    found = {name.replace("__", "/").replace("_", "."): text.encode() for name, text in files.items()}
    return Tree({path: File(digest_of_bytes(data), len(data)) for path, data in found.items()})


def pipeline(**values: Any) -> Pipeline:
    steps = {"train": {"run": "x", "metrics": "m.json"}, "evaluate": {"run": "x", "evidence": "e.csv"}}
    return Pipeline.model_validate({"name": "p", "steps": steps, **values})


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("champion", "the champion 1.2.dev3+g1"),
        ("champion:staging", "the champion 1.2.dev3+g1 of staging"),
        ("previous", "the run before (1.2.dev3+g1)"),
        ("branch:main", "branch main (1.2.dev3+g1)"),
        ("version:1.2.dev3", "version 1.2.dev3+g1"),
        ("version:1.3", "version 1.3 (1.2.dev3+g1)"),
    ],
)
def test_what_was_found_has_a_name_and_a_version(name: str, words: str) -> None:
    """The baseline as the file names it, with what it stands for; a tag's version is told with the commit's own."""
    assert named(BaselineName(name=name), "1.2.dev3+g1") == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("branch:main", "the newest run of branch main (run 3) failed, and none before it can be a baseline"),
        ("previous", "the newest run before this one (run 3) failed, and none before it can be a baseline"),
    ],
)
def test_why_there_is_none(name: str, words: str) -> None:
    """Where there are runs and none is sound, the newest of them tells why."""
    assert none_sound(BaselineName(name=name), 3, "failed") == words
    assert missing(BaselineName(name=name)).startswith("there is no run ")


# --- where a run comes from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("data/train.csv", True),
        ("a.CSV", True),
        ("a.csv.gz", True),
        ("images/1.png", True),
        ("src/train.py", False),
        ("params.json", False),
        ("csv", False),
        (".csv", False),
        ("data.csv/readme", False),
    ],
)
def test_data_is_told_by_its_ending(path: str, is_one: bool) -> None:
    """Tables, arrays, images, sound and archives are data; code, settings and names without an ending are not."""
    assert is_data(path) is is_one


def test_the_data_of_a_step_is_its_files_of_data_and_nothing_else() -> None:
    """Code and the model do not change it, data and outside data do; a step without any has none."""
    found = data_digest(tree(a_py="1", data__a_csv="1", model__w_npz="1"), ["model/"], {"s3://x": "1"})
    assert found == data_digest(tree(a_py="2", data__a_csv="1", model__w_npz="2"), ["model/"], {"s3://x": "1"})
    assert found != data_digest(tree(a_py="1", data__a_csv="2", model__w_npz="1"), ["model/"], {"s3://x": "1"})
    assert found != data_digest(tree(data__a_csv="1"), (), {"s3://x": "2"})
    assert data_digest(tree(a_py="1")) is None
    assert data_digest(tree(), (), {"s3://x": "1"}) is not None


def test_seeds_are_what_steps_are_given_and_variables_that_say_so() -> None:
    """The file's own seeds stand beside that of every run, those of a step under its name."""
    steps = {"train": {"run": "x", "variables": {"Numpy_Seed": 3, "LR": 1}}}
    found = seeds_of(pipeline(steps=steps, variables={"SEED": 7, "EPOCHS": 4}), "0")
    assert found == {"PENSTOCK_SEED": "0", "SEED": "7", "train.Numpy_Seed": "3"}


def test_which_steps_leave_numbers() -> None:
    """Those with metrics, a benchmark or evidence."""
    steps = pipeline(steps={"a": {"run": "x", "benchmark": "b.json"}, "b": {"run": "x"}}).steps
    assert [leaves_numbers(step) for step in steps.values()] == [True, False]
    assert all(map(leaves_numbers, pipeline().steps.values()))


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (Origin({"train": "d", "unit": "e"}, {"cpus": 4}), ""),
        (Origin({"train": "other"}, {"cpus": 4}), "on other data"),
        (Origin({}, {"cpus": 4}), "on other data"),
        (Origin({"train": "d"}, {"cpus": 8}), "on other hardware"),
        (Origin({"train": "x"}, {"cpus": 8}), "on other data and on other hardware"),
        (Origin({"train": "d"}), ""),
        (None, ""),
    ],
)
def test_in_what_a_run_and_its_baseline_differ(theirs: Origin | None, words: str) -> None:
    """Only the judged steps' data counts, and only what is known of both machines."""
    assert apart(Origin({"train": "d", "unit": "u"}, {"cpus": 4, "gpus": []}), theirs, ["train"]) == words


# --- numbers that the file fixes -----------------------------------------------------------------------------------


def test_fixed_gates_are_found_inside_of_others() -> None:
    """A member has the name of the whole before its number."""
    fixed: dict[str, Any] = {"metric": "train.accuracy", "better_than": {"fixed": 0.9}}
    bound: dict[str, Any] = {"metric": "train.accuracy", "at_least": 0.5}
    gates = {"a": fixed, "b": bound, "c": {"all_of": [bound, fixed, {"any_of": [fixed, bound]}]}}
    written = {name: {"name": name, **gate} for name, gate in gates.items()}
    assert [place for place, _ in fixed_gates(pipeline(gates=written))] == ["a", "c.2", "c.3.1"]


def history(*changes: tuple[str, float]) -> list[Change]:
    """Changes of one run after the other."""
    return [replace(CHANGE, event=e, value=v, run=n, request=n) for n, (e, v) in enumerate(changes)]


@pytest.mark.parametrize(
    ("changes", "value", "least", "since"),
    [
        ([("set", 0.9)], 0.9, 0.9, 0),
        ([("set", 0.9), ("raised", 0.92)], 0.92, 0.92, 0),
        ([("set", 0.9), ("approved", 0.8)], 0.9, 0.8, 0),
        ([("set", 0.9), ("approved", 0.8), ("approved", 0.85)], 0.9, 0.85, 0),
        ([("set", 0.9), ("approved", 0.8), ("raised", 0.91)], 0.91, 0.91, 0),
        ([("set", 0.9), ("approved", 0.8), ("lowered", 0.84)], 0.84, 0.84, 2),
    ],
)
def test_what_stands(changes: list[tuple[str, float]], value: float, least: float, since: int) -> None:
    """The last number that a run passed with; an approval allows less until the number changes again."""
    assert standing(history(*changes)) == Standing(value, None, least, since)


def test_nothing_stands_before_the_first_run() -> None:
    """An approval alone makes no baseline."""
    assert standing([]) is None
    assert standing(history(("approved", 0.5))) is None


@pytest.mark.parametrize(
    ("value", "first", "event"),
    [(0.95, 6, "raised"), (0.95, 4, None), (0.9, 6, None), (0.85, 6, "lowered"), (0.8, 6, "lowered"), (0.79, 6, None)],
)
def test_what_a_passed_run_makes_of_its_number(value: float, first: int, event: str | None) -> None:
    """A higher one is taken, unless its commit is from before the last lowering; a lower one as far as approved."""
    assert adopted(value, Standing(0.9, None, 0.8, 5), first) == event
    assert adopted(value, None, first) == "set"


@given(st.lists(st.tuples(st.booleans(), UNIT), max_size=30))
def test_no_number_falls_without_an_approval(story: list[tuple[bool, float]]) -> None:
    """Whatever people approve and files say, what stands goes down only to where somebody had approved it since."""
    changes: list[Change] = []
    allowed: set[float] = set()
    for is_approval, value in story:
        stands = standing(changes)
        event = "approved" if is_approval else adopted(value, stands, len(changes))
        if is_approval and stands is not None:
            allowed.add(value)
        if event is not None and not (is_approval and stands is None):
            changes += history(*_pairs(changes), (event, value))[-1:]
        after = standing(changes)
        if stands is not None and after is not None and after.value < stands.value:
            assert after.value >= min(allowed)
        if event in {"set", "raised", "lowered"}:
            allowed.clear()


def _pairs(changes: Iterable[Change]) -> list[tuple[str, float]]:
    return [(change.event, change.value) for change in changes]
