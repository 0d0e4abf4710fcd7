"""What decides whether and when a step or run goes on: matrices, conditions, fail-fast, groups, outside data."""

from collections.abc import Mapping
from typing import Any

import pytest

from engine.builders import Command, House, step, steps, until
from penstock.runners.scripted import NEVER, Act
from penstock.runs import RunStatus

SOURCE = {"src__a.py": "A = 1\n"}


def only(**named: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline of steps alone."""
    return {"steps": named}


def started(house: House) -> list[str]:
    """The ids of all processes but that of check, in the order of their starts."""
    return [spec.id for spec in house.machine.started if ".check." not in spec.id]


# --- matrix --------------------------------------------------------------------------------------------------------

SEEDS: dict[str, Any] = {
    "steps": {
        "train": {
            "run": "train seed ${{ matrix.seed }}",
            "inputs": ["src/"],
            "outputs": ["model/"],
            "metrics": "metrics.json",
            "matrix": {"seed": [0, 1, 2]},
        },
        "pick": {"run": "pick", "inputs": ["model/"], "needs": "train[seed=1]"},
    },
    "gates": {
        "mean": {"metric": "train.accuracy", "aggregate": "mean", "at_least": 0.8},
        "worst": {"metric": "train.accuracy", "aggregate": "min", "at_least": 0.75},
        "one": {"metric": "train[seed=2].accuracy", "at_least": 0.9},
    },
}


def trained(seed: int, accuracy: float) -> dict[str, Act]:
    return {
        f"train seed {seed}": Act(files={"model/weights": f"w{seed}", "metrics.json": f'{{"accuracy": {accuracy}}}'})
    }


def test_each_cell_is_a_step(house: House) -> None:
    """Cells run by themselves, a consumer gets the outputs of the cell it names, and gates judge one or all."""
    house.machine.script.update({**trained(0, 0.7), **trained(1, 0.8), **trained(2, 0.9)})
    house.commit(SEEDS, **SOURCE)
    shown = house.run()
    cells = {f"train[seed={n}]": "passed" for n in range(3)}
    assert steps(shown) == {"check": "passed", **cells, "pick": "passed"}
    assert shown.metrics["train[seed=2].accuracy"] == 0.9
    assert [(g.name, g.verdict, g.value) for g in shown.gates] == [
        ("mean", "pass", pytest.approx(0.8)),
        ("worst", "fail", 0.7),
        ("one", "pass", 0.9),
    ]
    assert "the min of 3 cells" in shown.gates[1].reasons[0]
    assert house.machine.found["1.pick.1"] == {"model/weights"}
    picked = house.store.runs.step(1, "train[seed=1]").result
    assert picked is not None
    assert house.world.cache.tree(picked["outputs"]).entries["model/weights"].size == 2  # type: ignore[union-attr]


def test_one_new_cell_runs_alone(house: House) -> None:
    """A value that is added to an axis runs; the cells before it are known."""
    house.machine.script.update({**trained(0, 0.9), **trained(1, 0.9), **trained(2, 0.9), **trained(3, 0.9)})
    house.commit(SEEDS, **SOURCE)
    house.run()
    more = {**SEEDS["steps"]["train"], "matrix": {"seed": [0, 1, 2, 3]}}
    house.commit({**SEEDS, "steps": {**SEEDS["steps"], "train": more}}, **SOURCE)
    house.run()
    assert [name for name in started(house) if name.startswith("2.")] == ["2.train[seed=3].1"]


def test_a_gate_over_cells_waits_for_all_of_them(house: House) -> None:
    """Where one cell failed the aggregate is not judged, and the gate says which step was red."""
    house.machine.script.update({**trained(0, 0.9), "train seed 1": 1, **trained(2, 0.9)})
    house.commit(SEEDS, **SOURCE)
    shown = house.run()
    assert shown.gates[0].verdict is None
    assert shown.gates[0].reasons == ("not judged: step train[seed=1] failed",)


# --- conditions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told", "cleaned", "status"), [(0, "skipped", "passed", "passed"), (1, "passed", "passed", "failed")]
)
def test_steps_for_failures_and_for_all_ends(house: House, code: int, told: str, cleaned: str, status: str) -> None:
    """`failed` runs after something red only, `always` after either; neither changes how the run ends."""
    house.machine.script["train it"] = code
    house.commit(
        only(
            train={"run": "train it"},
            after={"run": "go on", "needs": "train"},
            tell={"run": "tell", "needs": "after", "when": "failed"},
            clean={"run": "clean", "needs": "after", "when": "always"},
        )
    )
    shown = house.run()
    assert (steps(shown)["tell"], steps(shown)["clean"], shown.status) == (told, cleaned, status)
    if told == "skipped":
        assert step(shown, "tell").reason == "nothing that it needs failed"


def test_a_condition_on_branches_and_paths(house: House) -> None:
    """A step whose condition does not hold is skipped with the reason, and the run passes without it."""
    house.commit(
        only(
            docs={"run": "build docs", "when": {"paths": ["docs/"]}},
            main={"run": "on main", "when": {"branches": ["main"]}},
            release={"run": "on release", "when": {"branches": ["release/*"]}},
            after={"run": "after", "needs": "release"},
        ),
        **SOURCE,
    )
    shown = house.run()
    assert steps(shown) == {
        "check": "passed",
        "docs": "skipped",
        "main": "passed",
        "release": "skipped",
        "after": "skipped",
    }
    assert step(shown, "docs").reason == "its condition: the change touches none of docs/"
    assert "is not on release/*" in str(step(shown, "release").reason)
    assert step(shown, "after").reason == "needs release, which was skipped"
    assert shown.status == "passed"


def test_a_condition_that_does_not_hold_stops_no_release(house: House) -> None:
    """A step that was skipped by its condition is not red: what passed is released."""
    house.commit(
        {
            "steps": {
                "make": {"run": "make it", "inputs": ["src/"], "outputs": ["model/"]},
                "tell": {"run": "tell", "needs": "make", "when": "failed"},
            },
            "package": {"model": ["model/"], "serve": "serve the model"},
            "environments": {"production": {"port": 8802}},
        },
        **SOURCE,
    )
    house.machine.script["make it"] = Act(files={"model/w": "w"})
    shown = house.run()
    assert (shown.status, [r.status for r in shown.releases]) == ("passed", ["serving"])


# --- fail_fast -----------------------------------------------------------------------------------------------------


def test_the_first_red_step_ends_the_others(house: House) -> None:
    """With fail_fast what runs is ended and what waits is skipped, with the reason; the run failed."""
    house.machine.script.update({"wait": NEVER, "break": 1})
    pipeline = only(
        long={"run": "wait"},
        bad={"run": "break"},
        later={"run": "later"},
        tell={"run": "tell", "needs": ["long", "bad"], "when": "always"},
    )
    house.commit({**pipeline, "fail_fast": True})
    shown = house.run()
    assert steps(shown) == {
        "check": "passed",
        "long": "canceled",
        "bad": "failed",
        "later": "skipped",
        "tell": "passed",
    }
    assert (shown.status, shown.reason) == ("failed", "step bad failed")
    assert step(shown, "long").reason == step(shown, "later").reason == "fail_fast: bad failed"
    assert not house.machine.runs("1.long.1")


# --- concurrency ---------------------------------------------------------------------------------------------------


def grouped(**more: Any) -> dict[str, Any]:
    return {**only(train={"run": "wait"}), "concurrency": {"group": "training", **more}}


def status(house: House, request: int) -> tuple[str, str | None]:
    shown = house.run_of(request)
    return shown.status, shown.reason


def test_a_newer_run_waits_for_an_older_one(house: House) -> None:
    """One run of a group goes on at a time, in order; what waits says for whom, and can be canceled."""
    house.machine.script["wait"] = NEVER
    house.commit(grouped())

    async def story() -> None:
        first, second, third = house.ask_run(), house.ask_run(), house.ask_run()
        async with house.coordinating():
            await until(lambda: house.machine.runs("1.train.1"))
            await until(lambda: house.store.runs.of_request(third) is not None)
            await until(lambda: status(house, second)[1] is not None)
            assert status(house, second) == ("queued", "waits for run 1 of its concurrency group")
            canceled = house.ask("cancel", {"runs": [2]})
            assert (await house.ended(canceled)).error is None
            assert status(house, second) == ("canceled", "canceled")
            assert (await house.ended(second)).exit_code == 3
            await house.machine.finish("1.train.1")
            await house.ended(first)
            await until(lambda: house.machine.runs("3.train.1"))
            await house.machine.finish("3.train.1")
            assert (await house.ended(third)).exit_code == 0
        assert started(house) == ["1.train.1", "3.train.1"]

    house.play(story())


def test_a_newer_run_takes_the_place_of_an_older_one(house: House) -> None:
    """With `older: cancel` the older run ends as superseded, and nothing of it is left."""
    house.machine.script["wait"] = NEVER
    house.commit(grouped(older="cancel"))

    async def story() -> None:
        first = house.ask_run()
        async with house.coordinating():
            await until(lambda: house.machine.runs("1.train.1"))
            second = house.ask_run()
            assert (await house.ended(first)).exit_code == 3
            assert status(house, first) == ("superseded", "a newer run of its group took its place")
            assert not house.machine.runs("1.train.1")
            await until(lambda: house.machine.runs("2.train.1"))
            await house.machine.finish("2.train.1")
            assert (await house.ended(second)).exit_code == 0

    house.play(story())


def test_branches_have_groups_of_their_own(house: House) -> None:
    """Per branch, runs of other branches do not wait; a limit of two lets two go on."""
    house.machine.script["wait"] = NEVER
    house.commit(grouped(per="branch"))

    async def story() -> None:
        house.ask_run()
        house.repo.git("checkout", "--quiet", "-b", "idea")
        house.commit(grouped(per="branch"), b="x")
        house.ask_run()
        async with house.coordinating():
            await until(lambda: house.machine.runs("1.train.1") and house.machine.runs("2.train.1"))

    house.play(story())


def test_a_group_survives_its_coordinator(house: House) -> None:
    """The next coordinator goes on with the run that was begun, and the other one still waits for it."""
    house.machine.script["wait"] = NEVER
    house.commit(grouped())

    async def story() -> None:
        first, second = house.ask_run(), house.ask_run()
        async with house.coordinating():
            await until(lambda: house.machine.runs("1.train.1"))
        async with house.coordinating():
            await until(lambda: status(house, second)[1] is not None)
            assert started(house) == ["1.train.1"]
            await house.machine.finish("1.train.1")
            await house.ended(first)
            await until(lambda: house.machine.runs("2.train.1"))
            await house.machine.finish("2.train.1")
            await house.ended(second)

    house.play(story())


def test_a_run_whose_command_died_does_not_hold_the_group_before_it_began(house: House) -> None:
    """A run that waits for nobody is no member: the next one starts."""
    house.machine.script["wait"] = NEVER
    house.commit(grouped())
    command = Command()

    async def story() -> None:
        house.ask_run(command.follower)
        second = house.ask_run()
        command.die()
        async with house.coordinating():
            await until(lambda: house.machine.runs("2.train.1"))
            await house.machine.finish("2.train.1")
            await house.ended(second)
        assert house.store.runs.status(1) is RunStatus.QUEUED

    house.play(story())


# --- outside data and freshness ------------------------------------------------------------------------------------

OUTSIDE = only(
    load={"run": "load it", "outputs": ["data/"], "fingerprint": "ask the database"},
    train={"run": "train on it", "inputs": ["data/"]},
)


def test_a_step_runs_again_when_its_outside_data_changed(house: House) -> None:
    """What the fingerprint prints is part of the key, and stands in the reason."""
    house.machine.script["load it"] = Act(files={"data/rows": "1"})
    house.machine.script["ask the database"] = Act(files={".penstock-fingerprint": "10 rows\n"})
    house.commit(OUTSIDE)
    assert house.run().status == "passed"
    again = house.run()
    assert [s.name for s in again.steps if s.cached] == ["check", "load", "train"]
    house.machine.script["ask the database"] = Act(files={".penstock-fingerprint": "11 rows\n"})
    changed = house.run()
    assert step(changed, "load").reason == "its outside data changed"
    assert step(changed, "train").cached


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(3), "the outside data of load could not be told: exit code 3"),
        (Act(files={".penstock-fingerprint": "\n"}), "the fingerprint of load printed nothing"),
    ],
)
def test_what_cannot_be_told_is_red(house: House, act: Act, reason: str) -> None:
    """A fingerprint that fails or says nothing stops what depends on it, in one sentence."""
    house.machine.script["ask the database"] = act
    house.commit(OUTSIDE)
    shown = house.run()
    assert shown.status == "failed"
    assert str(step(shown, "load.fingerprint").reason).startswith(reason)
    assert step(shown, "load").reason == "needs load.fingerprint, which failed"


def test_fresh_steps_run_under_their_triggers(house: House) -> None:
    """Under the trigger that it names a fresh step, and all after it, reuses nothing; what is before it does."""
    house.machine.script.update({"load it": Act(files={"data/rows": "1"}), "train": Act(files={"model/w": "w"})})
    house.commit(
        only(
            load={"run": "load it", "inputs": ["src/"], "outputs": ["data/"]},
            train={"run": "train", "inputs": ["data/"], "outputs": ["model/"], "fresh": ["manual"]},
            test={"run": "test", "inputs": ["model/"]},
        ),
        **SOURCE,
    )
    house.run()
    again = house.run()
    assert steps(again) == {"check": "skipped", "load": "skipped", "train": "passed", "test": "passed"}
    assert step(again, "test").reason == "fresh: nothing is reused under the trigger manual"


def test_cells_share_a_fingerprint(house: House) -> None:
    """The outside data of a step with a matrix is told once for all its cells."""
    matrix = {"run": "x", "fingerprint": "ask", "matrix": {"seed": [0, 1]}}
    house.commit(only(train=matrix))
    shown = house.run()
    assert [s.name for s in shown.steps] == ["check", "train.fingerprint", "train[seed=0]", "train[seed=1]"]
    assert step(shown, "train[seed=1]").needs == ("check", "train.fingerprint")


# --- trust ---------------------------------------------------------------------------------------------------------


def test_an_untrusted_run_keeps_its_results_to_itself(house: House) -> None:
    """It reads what trusted runs left, and what it leaves only runs of its own scope read."""
    house.machine.script["make"] = Act(files={"data/rows": "1"})
    pipeline = only(
        load={"run": "make data", "inputs": ["src/"], "outputs": ["data/"]},
        train={"run": "train", "inputs": ["data/", "b"]},
    )
    house.commit(pipeline, **SOURCE, b="1")
    house.run()
    house.commit(pipeline, **SOURCE, b="2")

    def cached(**options: Any) -> list[str]:
        return [s.name for s in house.run(**options).steps if s.cached and s.name != "check"]

    assert cached(scope="stranger") == ["load"]
    assert cached(scope="stranger") == ["load", "train"]
    assert cached(scope="another") == ["load"]
    assert cached() == ["load"]
    assert cached() == ["load", "train"]


def test_an_untrusted_run_is_given_no_secret(house: House) -> None:
    """A step that names a secret is errored before anything of it runs, and HOME is not that of trusted runs."""
    house.commit(only(train={"run": "train", "secrets": ["TOKEN"]}, other={"run": "other"}))
    shown = house.run(scope="stranger")
    assert step(shown, "train").status == "errored"
    assert step(shown, "train").reason == "step train names secrets, and a change that is not trusted is given none"
    assert started(house) == ["1.other.1"]
    homes = {spec.variables["HOME"] for spec in house.machine.started}
    assert homes != {str(house.world.home.person(house.store.runs.get(1).project))}


def test_what_an_untrusted_run_packages_cannot_be_deployed(house: House) -> None:
    """Its package never counts as passed, however green the run."""
    house.machine.script["make"] = Act(files={"model/w": "w"})
    house.commit(
        {
            "steps": {"make": {"run": "make it", "inputs": ["src/"], "outputs": ["model/"]}},
            "package": {"model": ["model/"], "serve": "serve the model"},
            "environments": {"production": {"port": 8802}},
        },
        **SOURCE,
    )
    shown = house.run(scope="stranger", no_deploy=True)
    assert shown.status == "passed"
    assert [p.passed for p in house.store.runs.packages(house.store.runs.get(1).project)] == [False]


def test_a_step_that_can_never_fit_is_errored(house: House) -> None:
    """Where a run was asked for by a trigger, or on a larger machine, such a step does not wait for ever."""
    house.commit(only(train={"run": "train", "resources": {"gpu": 1}}))
    shown = house.run()
    assert (shown.status, step(shown, "train").reason) == (
        "errored",
        "step train asks for 1 GPUs, and this home has 0",
    )


def test_gates_judge_what_was_known_last(house: House) -> None:
    """Where every step is known at once, the gate on the last of them is judged before anything is released."""
    house.machine.script.update(
        {"make": Act(files={"model/w": "w"}), "ask it": Act(files={"metrics.json": '{"accuracy": 0.9}'})}
    )
    house.commit(
        {
            "steps": {
                "make": {"run": "make it", "inputs": ["src/"], "outputs": ["model/"]},
                "ask": {"run": "ask it", "inputs": ["src/"], "needs": ["package"], "metrics": "metrics.json"},
            },
            "package": {"model": ["model/"], "serve": "serve the model"},
            "gates": {"accurate": {"metric": "ask.accuracy", "at_least": 0.8}},
            "environments": {"production": {"port": 8802}},
        },
        **SOURCE,
    )
    for _ in range(2):
        shown = house.run()
        assert [(g.verdict, g.value) for g in shown.gates] == [("pass", 0.9)]
        assert [r.status for r in shown.releases] == ["serving"]
    assert step(shown, "ask").cached
