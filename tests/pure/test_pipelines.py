"""The pipeline's models, what follows from them, and what is wrong with a whole."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock.flaws import MAX_STEPS, flaws
from penstock.parts import Runtime
from penstock.patterns import overlaps
from penstock.pipelines import (
    LATER,
    MAX_COMPARISONS,
    MAX_NEEDS,
    Gate,
    Outputs,
    Package,
    Pipeline,
    Step,
    interpolate,
    json_schema,
    needs,
    order,
    stages,
)
from penstock.values import described, shortened


def pipeline(steps: dict[str, Any], **rest: Any) -> Pipeline:
    return Pipeline.model_validate({"name": "digits", "steps": steps, **rest})


def step(**rest: Any) -> Step:
    return pipeline({"a": {"run": "true", **rest}}).steps["a"]


DIGITS = pipeline(
    {
        "unit": {"stage": "test", "run": "pytest", "inputs": ["src/", "tests/unit/"]},
        "train": {"run": "train", "inputs": ["src/", "data/"], "outputs": "model/", "metrics": "metrics.json"},
        "data": {"run": "data", "inputs": "src/data.py", "outputs": ["data/"]},
        "evaluate": {
            "run": "evaluate",
            "needs": "package",
            "evidence": {"predictions": "predictions.csv", "truth": "data/test.csv"},
        },
    },
    package={"model": "model/", "code": "src/", "serve": "serve"},
    environments={"staging": {"port": 8801}, "production": {"port": 8800, "needs": "staging"}},
)


# --- what follows


def test_needs() -> None:
    """Needs are what is written, what is read of another's outputs, and what the package holds."""
    assert needs(DIGITS) == {
        "unit": frozenset(),
        "train": {"data"},
        "data": frozenset(),
        "evaluate": {"package", "data"},
        "package": {"train"},
    }


def test_step_never_needs_itself() -> None:
    """A step that reads its own outputs, or names itself or nobody, needs nothing by it."""
    own = {"run": "x", "needs": ["a", "nobody", "package"], "inputs": "out/", "outputs": "out/"}
    assert needs(pipeline({"a": own})) == {"a": frozenset()}


def test_stages_with_package() -> None:
    """Build is what the package comes from, directly or not; the rest is test unless the file says otherwise."""
    assert stages(DIGITS) == {"unit": "test", "train": "build", "data": "build", "evaluate": "test"}
    assert stages(pipeline({"a": {"run": "x", "stage": "deploy"}})) == {"a": "deploy"}


def test_stages_without_package() -> None:
    """Without a package, a step whose outputs another reads is build."""
    steps = {"a": {"run": "x", "outputs": "o/"}, "b": {"run": "x", "inputs": "o/x", "outputs": "p/"}}
    assert stages(pipeline(steps)) == {"a": "build", "b": "test"}


def test_order_keeps_the_file() -> None:
    """Every step comes after what it needs, and otherwise as the file has them; the package counts as last."""
    assert order(DIGITS) == ("unit", "data", "train", "package", "evaluate")


def test_order_refuses_a_loop() -> None:
    """A loop has no order."""
    with pytest.raises(ValueError, match="loop"):
        order(pipeline({"a": {"run": "x", "needs": "b"}, "b": {"run": "x", "needs": "a"}}))


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=10))
def test_order_respects_needs(sets: list[set[int]]) -> None:
    """Whatever the needs, the order has each step once, after all that it needs, and earlier ones first if free."""
    steps = {f"s{n}": {"run": "x", "needs": [f"s{m}" for m in found if m < n]} for n, found in enumerate(sets)}
    whole = pipeline(dict(sorted(steps.items(), reverse=True)))
    wanted, done = needs(whole), order(whole)
    assert sorted(done) == sorted(steps)
    assert all(done.index(need) < done.index(name) for name in done for need in wanted[name])
    names = list(whole.steps)
    for one, two in pairwise(done):
        assert names.index(one) < names.index(two) or one in wanted[two]


_PATTERN = st.sampled_from(["a", "a/", "a/b", "a/b/c", "a/*.x", "a/**", "*", "b/a", ".", "b/*/c", "b", "a/c"])


@settings(deadline=None)
@given(st.lists(st.lists(_PATTERN, max_size=3), min_size=1, max_size=5), _PATTERN)
def test_owners_are_those_that_overlap(outputs: list[list[str]], pattern: str) -> None:
    """The index finds the same steps as comparing each output with the pattern."""
    steps = {f"s{n}": {"run": "x", "outputs": found} for n, found in enumerate(outputs)}
    expected = {name for name, s in steps.items() if any(overlaps(pattern, out) for out in s["outputs"])}
    assert Outputs(pipeline(steps)).owners(pattern) == expected


# --- the models


def test_round_trip() -> None:
    """A pipeline that was dumped, as values or JSON, is the same when read again."""
    assert Pipeline.model_validate(DIGITS.model_dump()) == DIGITS
    assert Pipeline.model_validate_json(DIGITS.model_dump_json()) == DIGITS


def test_frozen() -> None:
    """A pipeline cannot be changed."""
    with pytest.raises(ValidationError, match="frozen"):
        DIGITS.steps["unit"].run = "other"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({}, False),
        ({"inputs": []}, True),
        ({"outputs": "o/"}, True),
        ({"inputs": "i/", "cache": False}, False),
        ({"metrics": "m.json"}, False),
    ],
)
def test_cacheable(rest: dict[str, Any], expected: bool) -> None:
    """A step is cacheable if it declares inputs or outputs and the file does not forbid it."""
    assert step(**rest).cacheable is expected


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("500ms", 0.5), (12, 12), (1.5, 1.5), ("1.5h", 5400)],
)
def test_durations(written: str | float, seconds: float) -> None:
    """A duration is a number of seconds or amounts with units."""
    assert step(timeout=written).timeout == seconds


@pytest.mark.parametrize("written", ["", "m", "30", "0s", "-1s", "1.2.3s", "1m1h", "1000000h", "1d", ".s", "3 m"])
def test_not_durations(written: str) -> None:
    """Anything else is no duration, and the sentence shows some that are."""
    with pytest.raises(ValidationError, match="such as 90s"):
        step(timeout=written)


@pytest.mark.parametrize(
    ("written", "kept"), [("a/b", "a/b"), ("./a", "a"), ("././a/", "a/"), (".", "."), ("./", "."), ("a b", "a b")]
)
def test_paths(written: str, kept: str) -> None:
    """A path is kept in plain form."""
    assert step(inputs=written).inputs == (kept,)


@pytest.mark.parametrize(
    "written",
    ["", "/a", "../a", "a/..", "~/a", "$HOME/a", "a/${X}", "a\\b", "a\0b", "a\nb", "a//b", "a/./b", "a**b", "x" * 501],
)
def test_not_paths(written: str) -> None:
    """A path that could lead out of the repository, or that means something else elsewhere, is refused."""
    with pytest.raises(ValidationError, match="the path"):
        step(inputs=[written])


@pytest.mark.parametrize("written", ["a*.json", "a/", "."])
def test_one_file(written: str) -> None:
    """Where one file is meant, a folder or wildcard is refused."""
    with pytest.raises(ValidationError, match="must name one file"):
        step(metrics=written)


def test_runtime() -> None:
    """A Python version may be unquoted where it reads as written; a project's folder means its file."""
    assert Runtime.model_validate({"python": 3.11, "path": [".", "src"]}).python == "3.11"
    assert Runtime.model_validate({"python": "3.11.4"}).python == "3.11.4"
    files = [Runtime.model_validate({"pyproject": p}).pyproject for p in (".", "sub/", "sub", "sub/x.toml")]
    assert files == ["pyproject.toml", "sub/pyproject.toml", "sub/pyproject.toml", "sub/x.toml"]
    with pytest.raises(ValidationError, match="must name one folder"):
        Runtime.model_validate({"path": "a:b"})
    with pytest.raises(ValidationError, match=r"3\.10 is meant"):
        Runtime.model_validate({"python": 3.1})


def test_variables_become_text() -> None:
    """Numbers and booleans that did not come from a file become text too."""
    assert step(variables={"A": 1, "B": 1.5, "C": True, "D": "x"}).variables == {
        "A": "1",
        "B": "1.5",
        "C": "true",
        "D": "x",
    }


@pytest.mark.parametrize("name", ["1A", "A-B", "", "PENSTOCK_X", "PORT", "HOME"])
def test_not_variables(name: str) -> None:
    """A variable that no shell can name, or that Penstock sets itself, is refused wherever it stands."""
    with pytest.raises(ValidationError, match="variable"):
        step(variables={name: "x"})
    with pytest.raises(ValidationError, match="variable"):
        step(env=[name])


def test_package() -> None:
    """A package has model or code, and says what it holds."""
    assert Package.model_validate({"model": "m/", "code": ["a", "b"]}).contents == ("m/", "a", "b")
    assert Package.model_validate({"code": "a"}).start_timeout == 120
    nothing: tuple[dict[str, Any], ...] = ({}, {"model": []})
    for wrong in nothing:
        with pytest.raises(ValidationError, match="model, code or both"):
            Package.model_validate(wrong)


@pytest.mark.parametrize("health", ["health", "//elsewhere/x", "/a b", ""])
def test_not_health(health: str) -> None:
    """The health path is a path of the server itself."""
    with pytest.raises(ValidationError, match="/health"):
        Package.model_validate({"code": "a", "health": health})


@pytest.mark.parametrize(
    ("rest", "rule"),
    [
        ({"at_least": 0.85}, "at least 0.85"),
        ({"at_most": 50}, "at most 50"),
        ({"equals": 0}, "exactly 0"),
        (
            {"not_worse_than": "champion", "margin": 0.02},
            "not worse than the champion by more than 0.02",
        ),
        ({"within": [0.8, 0.9]}, "within 0.8 to 0.9"),
        ({"better_than": "champion"}, "better than the champion"),
        ({"better_than": "champion", "margin": 0.01}, "better than the champion by 0.01"),
    ],
)
def test_rules(rest: dict[str, Any], rule: str) -> None:
    """A gate says its rule in words and the step it needs."""
    gate = Gate.model_validate({"name": "g", "metric": "train.accuracy.mean", **rest})
    assert (gate.rule, gate.step, gate.score) == (rule, "train", None)


def test_score_of_evidence() -> None:
    """Evidence is scored as correct or not, unless the gate says otherwise."""
    gate = Gate.model_validate({"name": "g", "evidence": "evaluate", "at_least": 0})
    other = Gate.model_validate({"name": "g", "evidence": "e", "at_most": 1, "score": "squared_error"})
    assert (gate.score, gate.step, other.score) == ("correct", "evaluate", "squared_error")


def test_confidence_is_part_of_a_rule() -> None:
    """A rule on evidence says how sure its verdict must be where the file does."""
    gate = Gate.model_validate({"name": "g", "evidence": "e", "at_least": 0.85, "confidence": 0.99})
    loss = Gate.model_validate({"name": "g", "evidence": "e", "better_than": "champion", "score": "absolute_error"})
    assert (gate.rule, gate.by_interval) == ("at least 0.85, 99 % sure", True)
    assert (loss.by_interval, loss.against) == (True, "better_than")


def test_later_keys_are_not_keys() -> None:
    """A key that is refused until it is built is not one that is built."""
    assert not [key for part, keys in LATER.items() for key in keys if key in part.model_fields]


# --- interpolation


def test_interpolate() -> None:
    """Known names are replaced once, with or without spaces, and nothing else is touched."""
    text = "${{ variables.A }}-${{version}}-${{ commit }}-$A-${A}-{{ x }}"
    assert interpolate(text, {"A": "${{ version }}"}, "1.0", "abc") == "${{ version }}-1.0-abc-$A-${A}-{{ x }}"
    with pytest.raises(KeyError):
        interpolate("${{ variables.B }}", {}, "1.0", "abc")


# --- the schema


def test_schema_is_whole() -> None:
    """The schema is plain JSON of its draft, knows no nulls and no names, and accepts the short forms."""
    found = json_schema()
    assert found["$schema"].endswith("2020-12/schema")
    assert '"null"' not in json.dumps(found)
    a_step = found["$defs"]["Step"]
    assert "name" not in a_step["properties"]
    assert a_step["required"] == ["run"]
    assert {"type": "string"} in a_step["properties"]["inputs"]["anyOf"]
    assert a_step["properties"]["metrics"]["type"] == "string"
    assert found["required"] == ["name", "steps"]
    assert all(p.get("description") for d in found["$defs"].values() for p in d["properties"].values())


# --- flaws that only a large or an already parsed pipeline has


def test_sound_pipeline_has_no_flaws() -> None:
    """Nothing is wrong with the example."""
    assert flaws(DIGITS) == []


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ({f"s{n}": {"run": "x"} for n in range(MAX_STEPS + 1)}, "at most 20,000 steps"),
        (
            {f"s{n}": {"run": "x", "inputs": ".", "outputs": f"o{n}"} for n in range(int(MAX_NEEDS**0.5) + 2)},
            "need each other more than 250,000 times",
        ),
        (
            {
                "a": {"run": "x", "inputs": [f"*a{n}" for n in range(900)]},
                "b": {"run": "x", "outputs": [f"b{n}" for n in range(MAX_COMPARISONS // 900 + 1)]},
            },
            "take more than 100,000 comparisons",
        ),
        ({"a": {"run": "x", "inputs": [f"*a{n}" for n in range(1001)]}}, "at most 1,000 paths with wildcards"),
        (
            {f"s{n}": {"run": "x", "outputs": "/".join("abcdefghijklmnopqrst"[: n % 20 + 1])} for n in range(20_000)},
            "paths overlap outputs more than 150,000 times",
        ),
    ],
)
def test_sizes(steps: dict[str, Any], sentence: str) -> None:
    """A pipeline too large to be compared in time is refused in one sentence."""
    (flaw,) = flaws(pipeline(steps))
    assert sentence in flaw.sentence
    assert flaw.where == ("steps",)


def test_long_loop_is_told_shortly() -> None:
    """A loop of many steps is not told whole."""
    steps = {f"s{n}": {"run": "x", "needs": f"s{(n + 1) % 100}"} for n in range(100)}
    (flaw,) = flaws(pipeline(steps))
    assert flaw.sentence.endswith("s8 needs s9 needs … needs s0")


def test_words_for_values() -> None:
    """Values are described in words a person knows, and shortened to a line."""
    values: list[object] = [None, True, False, "a\nb", 1.5, [], {}]
    assert [described(v) for v in values] == [
        "nothing",
        "true",
        "false",
        'the text "a b"',
        "the number 1.5",
        "a list",
        "a mapping",
    ]
    assert shortened("x" * 41) == "x" * 39 + "…"
