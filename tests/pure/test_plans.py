"""From pipeline and commit to ordered steps, their inputs, their keys, and why each runs."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts import Digest, File, Link, Tree, digest_of_bytes, is_digest
from penstock.matrices import expand
from penstock.pipelines import Pipeline
from penstock.plans import (
    Plan,
    PlannedStep,
    StepKind,
    changed_paths,
    check_ingredients,
    checked_files,
    has_runtime,
    key_of,
    lock_ingredients,
    missing_inputs,
    own_key,
    package_needs,
    plan,
    refreshed,
    remaining,
    replay_ingredients,
    request_files,
    step_ingredients,
    step_inputs,
    this_platform,
    why_run,
)


def pipeline(steps: dict[str, Any], **rest: Any) -> Pipeline:
    return Pipeline.model_validate({"name": "digits", "steps": steps, **rest})


def tree(*paths: str) -> Tree:
    """A tree whose files hold their own paths."""
    return Tree({p: File(digest_of_bytes(p.encode()), len(p)) for p in paths})


STEPS: dict[str, Any] = {
    "unit": {"run": "pytest", "inputs": ["src/", "tests/"]},
    "try": {"run": "pytest", "needs": ["package"], "inputs": ["tests/"]},
    "train": {"run": "python -m train", "inputs": ["src/", "data/"], "outputs": ["model/"]},
    "data": {"run": "python -m data", "outputs": ["data/"]},
}
DIGITS = pipeline(
    STEPS,
    runtime={"requirements": "requirements.txt", "path": ["src"]},
    package={"model": ["model/"], "code": ["src/"], "serve": "python -m serve"},
)


# --- plans ---------------------------------------------------------------------------------------------------------


def test_penstocks_own_steps_stand_around_the_files() -> None:
    """Check, lock and runtime come first, each step after what it needs, the replica after its package."""
    planned = plan(DIGITS)
    assert [(s.name, s.kind, s.stage, s.needs) for s in planned.steps] == [
        ("check", StepKind.CHECK, "build", ()),
        ("lock", StepKind.LOCK, "build", ("check",)),
        ("runtime", StepKind.RUNTIME, "build", ("lock",)),
        ("unit", StepKind.STEP, "test", ("runtime",)),
        ("data", StepKind.STEP, "build", ("runtime",)),
        ("train", StepKind.STEP, "build", ("runtime", "data")),
        ("package", StepKind.PACKAGE, "build", ("runtime", "train")),
        ("serve", StepKind.SERVE, "test", ("package",)),
        ("try", StepKind.STEP, "test", ("runtime", "package")),
    ]


def test_without_a_runtime_only_check_comes_first() -> None:
    """A file without dependencies plans neither lock nor runtime."""
    planned = plan(pipeline({"a": {"run": "true"}}, runtime={"path": ["src"]}))
    assert [(s.name, s.needs) for s in planned.steps] == [("check", ()), ("a", ("check",))]


@pytest.mark.parametrize(
    "runtime",
    [{"requirements": "r.txt"}, {"lock": "r.lock"}, {"pyproject": "."}, {"path": ["src"]}, {"python": "3.11"}, None],
)
def test_what_asks_for_a_runtime(runtime: dict[str, Any] | None) -> None:
    """Only a file that names packages gets an environment of its own."""
    asks = runtime is not None and not {"path", "python"} & runtime.keys()
    assert has_runtime(pipeline({"a": {"run": "true"}}, runtime=runtime)) is asks


@pytest.mark.parametrize(
    ("package", "needs", "planned"),
    [
        ({"code": ["src/"], "serve": "s"}, ["package"], True),
        ({"code": ["src/"], "serve": "s"}, [], False),
        ({"code": ["src/"]}, ["package"], False),
        ({"code": ["src/"], "serve": "s", "requests": "r.jsonl"}, [], True),
    ],
)
def test_the_replica_is_planned_where_it_is_used(package: dict[str, Any], needs: list[str], planned: bool) -> None:
    """A private replica needs something to serve and a step that asks it."""
    assert ("serve" in plan(pipeline({"a": {"run": "true", "needs": needs}}, package=package)).names) is planned


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Steps in any order of the file, each needing only some that come before it in a hidden order."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1))
    steps = {n: {"run": "true", "needs": draw(_some_of(names[:i]))} for i, n in enumerate(names)}
    return pipeline({n: steps[n] for n in draw(st.permutations(names))})


def _some_of(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True) if names else st.just([])


@given(pipelines())
def test_every_step_comes_after_its_needs(made: Pipeline) -> None:
    """The plan's order respects `needs`, and names every step of the file once."""
    planned = plan(made)
    seen: set[str] = set()
    for step in planned.steps:
        assert seen.issuperset(step.needs)
        seen.add(step.name)
    assert sorted(planned.names) == sorted((*made.steps, "check"))


@given(pipelines(), st.data())
def test_one_step_with_all_it_needs(made: Pipeline, data: st.DataObject) -> None:
    """`only` holds the step, is closed under needs, and nothing in it could be left out."""
    planned = plan(made)
    name = data.draw(st.sampled_from(planned.names))
    kept = planned.only(name)
    assert name in kept
    assert all(kept.issuperset(planned[n].needs) for n in kept)
    assert all(n == name or any(n in planned[user].needs for user in kept) for n in kept)


def test_a_plan_is_a_value() -> None:
    """Two plans of one file are equal, and a step that is not planned is a KeyError."""
    assert plan(DIGITS) == plan(DIGITS)
    with pytest.raises(KeyError):
        Plan(())["train"]


@given(pipelines(), st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.integers(1, 60), max_size=4)))
def test_the_longest_path_from_a_step(made: Pipeline, durations: dict[str, list[int]]) -> None:
    """What remains after a step's start is its own time and the longest of its users', so needs always have more."""
    planned = plan(made)
    paths = remaining(planned, durations)
    assert paths.keys() == set(planned.names)
    for each in planned.steps:
        users = [paths[u.name] for u in planned.steps if each.name in u.needs]
        own = paths[each.name] - max(users, default=0.0)
        past = durations.get(each.name)
        assert own == pytest.approx(median(past)) if past else own > 0


def test_a_step_without_a_past_takes_the_usual_time() -> None:
    """What was never timed counts as the median of what was, and as one second where nothing was."""
    planned = plan(pipeline({"a": {"run": "true"}, "b": {"run": "true", "needs": ["a"]}}))
    assert remaining(planned, {}) == {"check": 3.0, "a": 2.0, "b": 1.0}
    assert remaining(planned, {"a": [4, 8, 90], "b": []}) == {"check": 24.0, "a": 16.0, "b": 8.0}


# --- recorded requests


def replayed(**changed: Any) -> Pipeline:
    """A pipeline whose training writes the requests that its package is asked."""
    steps = {"train": {"run": "t", "outputs": ["model/", "r.jsonl"]}, "unit": {"run": "u"}}
    requests = {"file": "r.jsonl", **changed.pop("requests", {})}
    package = {"model": ["model/"], "serve": "s ${{ version }}", "requests": requests, **changed.pop("package", {})}
    return pipeline({**steps, **changed.pop("steps", {})}, package=package, **changed)


def test_a_replay_comes_last() -> None:
    """It needs the package and whatever writes the requests; requests of the commit need nothing else."""
    assert plan(replayed())["replay"] == PlannedStep("replay", StepKind.REPLAY, "test", ("package", "train"))
    assert plan(replayed()).names == ("check", "train", "unit", "package", "serve", "replay")
    later = {"late": {"run": "l", "needs": ["package"], "outputs": ["late.jsonl"]}}
    assert plan(replayed(steps=later, requests={"file": "late.jsonl"}))["replay"].needs == ("package", "late")
    assert plan(replayed(requests={"file": "src/r.jsonl"}))["replay"].needs == ("package",)


def test_a_replay_needs_the_cell_that_the_package_names() -> None:
    """Where cells write requests, those of the package's own cell are asked."""
    cells = {"train": {"run": "t", "outputs": ["model/", "r.jsonl"], "matrix": {"n": ["1", "2"]}}}
    made = expand(replayed(steps=cells, package={"needs": ["train[n=2]"]}))
    assert plan(made)["replay"].needs == ("package", "train[n=2]")


def test_a_fresh_training_has_its_package_asked_again() -> None:
    """A replay is among what comes after a step that reuses nothing."""
    fresh = replayed(steps={"train": {"run": "t", "outputs": ["model/", "r.jsonl"], "fresh": ["schedule"]}})
    assert refreshed(fresh, plan(fresh), "schedule") == {"train", "package", "replay"}


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"requests": {"tolerance": 0.5}}, "tolerance"),
        ({"requests": {"repeat": 2}}, "repeat"),
        ({"variables": {"A": "1"}}, "variables"),
        ({"package": {"serve": "x"}}, "command"),
    ],
)
def test_what_a_replay_depends_on(changed: dict[str, Any], part: str) -> None:
    """How it asks, and what is served with which variables; the requests and the package by their digests."""
    files, package = request_files(replayed(), tree("r.jsonl", "src/a.py")), digest_of_bytes(b"p")
    known = replay_ingredients(replayed(), files, package, "1.0", "c")
    other = replay_ingredients(replayed(**changed), files, package, "1.0", "c")
    assert {name for name in known if known[name] != other[name]} == {part}
    assert (known["inputs"], known["package"], known["command"]) == (tree("r.jsonl").digest, package, "s 1.0")
    assert why_run(other, known) != "its earlier result is gone from the cache"


def test_requests_are_a_file() -> None:
    """A link in their place, or nothing, gives no requests."""
    assert not request_files(replayed(), Tree({"r.jsonl": Link("elsewhere")}))
    assert not request_files(replayed(), tree("other"))


# --- inputs --------------------------------------------------------------------------------------------------------

COMMIT = tree("README", "src/a.py", "src/b.txt", "tests/t.py")


def test_inputs_are_exactly_what_is_named() -> None:
    """With `inputs` a workspace holds these files of commit and outputs only; without, the whole commit."""
    made = tree("data/x", "data/y", "other/z")
    chosen = pipeline({"a": {"run": "true", "inputs": ["src/", "data/x"]}}).steps["a"]
    assert list(step_inputs(chosen, COMMIT, made)) == ["data/x", "src/a.py", "src/b.txt"]
    whole = pipeline({"a": {"run": "true"}}).steps["a"]
    assert step_inputs(whole, COMMIT, made) == COMMIT.merge(made)


def test_an_output_wins_over_a_file_of_the_commit() -> None:
    """Where a step made a path that the commit has too, what was made is what is read."""
    fresh = Tree({"src/a.py": File(digest_of_bytes(b"made"), 4)})
    chosen = pipeline({"a": {"run": "true", "inputs": ["src/a.py"]}}).steps["a"]
    assert step_inputs(chosen, COMMIT, fresh) == fresh


def test_an_input_that_names_nothing_is_a_mistake() -> None:
    """Each input or package path without a file or output behind it gets a sentence of its own."""
    steps = {
        "make": {"run": "true", "outputs": ["out/"]},
        "use": {"run": "true", "inputs": ["src/", "out/x.txt", "scr/", "*.csv"]},
    }
    found = missing_inputs(pipeline(steps, package={"model": ["out/m"], "code": ["src/", "lib/"]}), COMMIT)
    assert found == [
        'step use: the input "scr/" names no file of this commit and no output',
        'step use: the input "*.csv" names no file of this commit and no output',
        'package: "lib/" names no file of this commit and no output',
    ]
    asked = {"code": ["src/"], "serve": "s", "requests": "r.jsonl"}
    assert missing_inputs(pipeline({"a": {"run": "true"}}, package=asked), COMMIT) == [
        'package.requests: "r.jsonl" names no file of this commit and no output'
    ]
    assert missing_inputs(pipeline({"a": {"run": "true"}}, package={**asked, "requests": "src/a.py"}), COMMIT) == []
    probing = {"production": {"port": 80, "probe": "src/asked.jsonl"}, "staging": {"port": 81, "probe": "src/a.py"}}
    served = pipeline({"a": {"run": "true"}}, package={"code": "src/", "serve": "s"}, environments=probing)
    assert missing_inputs(served, COMMIT) == [
        'environments.production.probe: "src/asked.jsonl" names no file of this commit and no output'
    ]
    assert missing_inputs(pipeline({"a": {"run": "true"}}), Tree()) == []


def test_check_is_strict_about_what_is_used() -> None:
    """Python that steps, package or path use must compile; the rest only warns; links and excluded files are left."""
    commit = tree("src/a.py", "lib/l.py", "tool.py", "code/c.py", "x.toml", "n.ipynb", "c.yml", "skip.py", "a.txt")
    commit = commit.merge(Tree({"src/link.py": Link("a.py")}))
    made = pipeline(
        {"a": {"run": "true", "inputs": ["src/"]}},
        runtime={"path": ["lib"]},
        package={"code": ["code/"]},
        check={"exclude": ["skip.py"]},
    )
    strict, lenient = checked_files(made, commit)
    assert strict == ("code/c.py", "lib/l.py", "src/a.py")
    assert lenient == ("c.yml", "n.ipynb", "tool.py", "x.toml")
    bare = pipeline({"a": {"run": "true"}})
    assert checked_files(bare, commit)[0] == ()


# --- keys ----------------------------------------------------------------------------------------------------------

VALUES = st.none() | st.text(max_size=4)
INGREDIENTS = st.dictionaries(st.sampled_from(["command", "inputs", "runtime", "variables", "package"]), VALUES)


@given(INGREDIENTS, INGREDIENTS)
def test_a_key_is_its_ingredients(one: Mapping[str, str | None], two: Mapping[str, str | None]) -> None:
    """Equal ingredients in any order give the same key, any difference another one; kinds of steps never collide."""
    assert (key_of(one) == key_of(two)) is (one == two)
    assert key_of(one) == key_of(dict(reversed(list(one.items()))))
    assert own_key("check", one) == own_key("check", dict(reversed(list(one.items()))))
    assert len({key_of(one), own_key("check", one), own_key("lock", one)}) == 3
    assert is_digest(key_of(one))


FULL: dict[str, Any] = {
    "run": "python -m train ${{ variables.EPOCHS }} ${{ version }}",
    "inputs": ["src/"],
    "outputs": ["model/"],
    "needs": ["package"],
    "metrics": "metrics.json",
    "variables": {"SEED": "1"},
}
RUNTIME = {"requirements": "r.txt", "python": "3.11", "path": ["src"]}


def ingredients(
    step: Mapping[str, Any] | None = None,
    *,
    files: Tree = COMMIT,
    variables: Mapping[str, str] | None = None,
    runtime: Mapping[str, Any] | None = RUNTIME,
    version: str = "0.1",
    environment: str | None = "e" * 64,
    package: str | None = "f" * 64,
) -> dict[str, str | None]:
    made = pipeline(
        {"train": {**FULL, **(step or {})}},
        variables=dict(variables or {"EPOCHS": "4"}),
        runtime=runtime,
        package={"code": ["src/"]},
    )
    return step_ingredients(
        made.steps["train"],
        inputs=files,
        pipeline=made,
        version=version,
        commit="c" * 40,
        environment=None if environment is None else Digest(environment),
        package=None if package is None else Digest(package),
    )


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"step": {"run": "python -m other"}}, "command"),
        ({"step": {"shell": "bash"}}, "command"),
        ({"version": "0.2"}, "command"),
        ({"files": COMMIT.merge(tree("src/new.py"))}, "inputs"),
        ({"environment": "d" * 64}, "runtime"),
        ({"runtime": {**RUNTIME, "path": ["lib"]}}, "path"),
        ({"runtime": {**RUNTIME, "python": "3.12"}}, "python"),
        ({"step": {"variables": {"SEED": "2"}}}, "variables"),
        ({"step": {"variables": {"SEEDS": "1"}}}, "variables"),
        ({"step": {"outputs": ["models/"]}}, "files"),
        ({"step": {"metrics": "m.json"}}, "files"),
        ({"step": {"report": "junit.xml"}}, "files"),
        ({"step": {"benchmark": "bench.json"}}, "files"),
        ({"step": {"coverage": "coverage.xml"}}, "files"),
        ({"step": {"evidence": "predictions.csv"}}, "files"),
        ({"package": "0" * 64}, "package"),
    ],
)
def test_whatever_a_result_depends_on_is_in_its_key(changed: dict[str, Any], part: str) -> None:
    """A change of one thing changes exactly its own ingredient, and so the key and the reason."""
    now, before = ingredients(**changed), ingredients()
    assert {name for name in now if now[name] != before[name]} == {part}
    assert key_of(now) != key_of(before)
    assert why_run(now, before) != why_run(before, before)


def test_a_variable_of_the_pipeline_is_in_the_key() -> None:
    """A pipeline variable counts by its value, also where the command spells it; the order of writing does not."""
    now, before = ingredients(variables={"EPOCHS": "5"}), ingredients()
    assert {name for name in now if now[name] != before[name]} == {"command", "variables"}
    assert ingredients(variables={"EPOCHS": "4", "A": "1"}) == ingredients(variables={"A": "1", "EPOCHS": "4"})


@pytest.mark.parametrize(
    "changed", [{"timeout": 5}, {"allow_failure": True}, {"stage": "test"}, {"env": ["HF_HOME"]}, {"cache": False}]
)
def test_what_changes_no_result_is_in_no_key(changed: dict[str, Any]) -> None:
    """Limits, labels and what is passed on from the person leave the key as it is."""
    assert ingredients(changed) == ingredients()


def test_a_step_without_the_package_does_not_depend_on_it() -> None:
    """The package's digest counts for steps that need it, and without a runtime there is nothing of one."""
    plain = ingredients({"needs": []}, runtime=None, environment=None)
    assert (plain["package"], plain["runtime"], plain["python"], plain["path"]) == (None, None, None, "")
    assert plain["platform"] == this_platform()


def test_what_check_depends_on() -> None:
    """Check depends on the files that it reads, on which of them are strict, and on the Python version."""
    made = pipeline({"a": {"run": "true", "inputs": ["src/"]}})
    before = check_ingredients(made, COMMIT)
    assert before == check_ingredients(made, COMMIT.merge(tree("notes.txt")))
    assert before["inputs"] != check_ingredients(made, COMMIT.merge(tree("x.toml")))["inputs"]
    wider = pipeline({"a": {"run": "true", "inputs": ["."]}}, runtime={"python": "3.12"})
    now = check_ingredients(wider, COMMIT)
    assert {name for name in now if now[name] != before[name]} == {"strict", "python"}


def test_what_a_lock_depends_on() -> None:
    """A lock depends on the files that ask and on the request's own key."""
    files = tree("requirements.txt")
    assert lock_ingredients(files, Digest("a" * 64)) == {"inputs": files.digest, "request": "a" * 64}


# --- why -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "its inputs changed"),
        (["b", "a"], "a, b changed"),
        (["c", "b", "a"], "a, b, c changed"),
        (["d", "c", "b", "a", "e"], "a, b, c and 2 more changed"),
    ],
)
def test_why_names_the_paths(paths: list[str], words: str) -> None:
    """A miss names up to three paths that changed, and counts the rest."""
    assert why_run({"inputs": "1"}, {"inputs": "2"}, paths) == words


def test_why_a_step_runs() -> None:
    """A miss is explained by all that differs from last time, inputs first."""
    before = {"inputs": "1", "command": "a", "runtime": "x"}
    assert why_run(before, None) == "no earlier result"
    assert why_run(before, before) == "its earlier result is gone from the cache"
    now = {"inputs": "2", "command": "b", "runtime": "x"}
    assert why_run(now, before, ["data.csv"]) == "data.csv changed; its command changed"


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
)
def test_changed_paths(one: dict[str, int], two: dict[str, int]) -> None:
    """Paths that were added, removed or altered are named in order, and no other."""
    now, before = ({p: File(digest_of_bytes(bytes(n)), n) for p, n in part.items()} for part in (one, two))
    wanted = [p for p in "abcd" if one.get(p) != two.get(p)]
    assert changed_paths(Tree(now), Tree(before)) == wanted


def test_what_a_package_is_made_of() -> None:
    """A package names its model, where it has one, and its code."""
    assert DIGITS.package is not None
    assert package_needs(DIGITS.package) == ("model/", "src/")
    bare = pipeline({"a": {"run": "true"}}, package={"code": ["src/"]}).package
    assert bare is not None
    assert package_needs(bare) == ("src/",)
