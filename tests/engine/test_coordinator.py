"""Runs from request to end: what starts, what stops, what is taken up again, and what stands in the store."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from engine.builders import ACTS, DIGITS, SERVE, Command, House, step, steps, until
from penstock.engine.coordinator import environment_order
from penstock.engine.views import log_range, to_json
from penstock.pipelines import Pipeline
from penstock.runners.scripted import LOST, NEVER, Act
from penstock.runs import RunStatus, RunView
from penstock.store.contract import NOBODY

SOURCE = {"src__a.py": "A = 1\n"}
LOCKED = {"requirements.txt": "nothing\n"}
ALL_GREEN = {
    "check": "passed",
    "data": "passed",
    "train": "passed",
    "package": "passed",
    "serve": "passed",
    "unit": "passed",
    "try": "passed",
}


def digits(**changes: Any) -> dict[str, Any]:
    """The example's pipeline with other parts."""
    return {**DIGITS, **changes}


def with_steps(**more: Mapping[str, Any]) -> dict[str, Any]:
    """The example's pipeline with steps added or altered."""
    known: dict[str, Any] = DIGITS["steps"]
    return digits(steps={**known, **{name: {**known.get(name, {}), **values} for name, values in more.items()}})


def only(**named: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline of steps alone."""
    return {"steps": named}


def attempts(house: House, name: str, run: int = 1) -> list[tuple[int, str | None, int | None]]:
    """The attempts of a step: number, end reason, exit code."""
    return [(a.number, a.reason, a.exit_code) for a in house.store.runs.attempts(run, name)]


def started(house: House) -> list[str]:
    """The ids of all processes, in the order of their starts."""
    return [spec.id for spec in house.machine.started]


# --- a run that passes ---------------------------------------------------------------------------------------------


def test_a_commit_becomes_a_release(house: House) -> None:
    """All steps pass in an order that respects needs, the gate judges, both environments serve the version."""
    sha = house.commit(DIGITS, **SOURCE)
    request = house.ask_run()

    async def story() -> None:
        ended = await house.carry_out(request)
        assert (ended.exit_code, ended.result, ended.error) == (0, {"run": 1}, None)

    house.play(story())
    shown = house.run_of(request)
    assert (shown.status, shown.reason, shown.commit, shown.project) == ("passed", None, sha, "digits")
    assert steps(shown) == ALL_GREEN
    assert shown.metrics == {"train.accuracy": 0.95}
    assert [(g.name, g.verdict) for g in shown.gates] == [("learned", "pass")]
    assert [(r.environment, r.status, r.url) for r in shown.releases] == [
        ("staging", "serving", "http://127.0.0.1:8801"),
        ("production", "serving", "http://127.0.0.1:8802"),
    ]
    assert (house.served(8801), house.served(8802)) == (shown.version, shown.version)
    package = house.store.runs.packages(house.store.runs.get(1).project)[0]
    assert (package.digest, package.passed) == (shown.package, True)
    assert package.lineage["metrics"] == {"train.accuracy": 0.95}
    assert not house.machine.runs("1.serve.1")


def test_what_a_step_finds(house: House) -> None:
    """A step's workspace holds exactly its inputs, and its variables are those of the contract."""
    house.commit(DIGITS, **SOURCE, README="read me")
    house.run()
    train = next(s for s in house.machine.started if s.id == "1.train.1")
    assert house.machine.found["1.train.1"] == {"src/a.py", "data/train.csv"}
    assert train.command == "train for 4 epochs"
    wanted = {"CI": "true", "EPOCHS": "4", "PENSTOCK_RUN": "1", "PENSTOCK_STEP": "train", "PENSTOCK_ATTEMPT": "1"}
    assert wanted.items() <= train.variables.items()
    assert "GIT_CONFIG_GLOBAL" not in train.variables
    tried = next(s for s in house.machine.started if s.id == "1.try.1")
    assert tried.variables["PENSTOCK_URL"].startswith("http://127.0.0.1:")
    assert tried.variables["PENSTOCK_PACKAGE"].endswith("package")


def test_the_log_of_a_step(house: House) -> None:
    """What a step printed is found by the range that its attempt names, though others share the file."""
    house.commit(DIGITS, **SOURCE)
    house.run()
    attempt = house.store.runs.attempts(1, "train")[0]
    path, start, end = log_range(attempt)
    with open(path, "rb") as log:  # noqa: PTH123
        assert log.read()[start:end] == b"epoch 4\n"
    assert step(house.last(), "train").log == path


def test_the_documented_object(house: House) -> None:
    """`run --json` shows the run with the keys that are promised, ready for any JSON reader."""
    house.commit(DIGITS, **SOURCE)
    shown = to_json(house.run())
    assert json.loads(json.dumps(shown)) == shown
    wanted = {"run", "project", "version", "commit", "status", "seconds", "steps", "gates", "package", "metrics"}
    assert wanted | {"releases"} <= shown.keys()
    assert shown["steps"][0].keys() == {
        "name", "stage", "status", "reason", "cached", "attempts", "seconds", "exit_code", "log",
    }  # fmt: skip
    assert shown["package"].keys() == {"digest", "size"}


def test_a_second_run_knows_everything(house: House) -> None:
    """The same commit again executes no step, keeps the metrics, and leaves the releases as they are."""
    house.commit(DIGITS, **SOURCE)
    first = house.run()
    before = started(house)
    second = house.run()
    assert second.status == "passed"
    assert started(house) == before
    kept = {s.name: (s.status, s.cached) for s in second.steps if s.name != "package"}
    assert set(kept.values()) == {("skipped", True)}
    assert step(second, "train").reason == "nothing changed since run 1"
    assert step(second, "serve").reason == "no step needed it"
    assert step(second, "package").reason == "the same package as before"
    assert second.metrics == first.metrics
    assert [r.status for r in second.releases] == ["serving", "serving"]
    assert len(house.store.releases.of()) == 2


def test_a_change_runs_what_it_touches(house: House) -> None:
    """After a change only the steps that read it run again, and each says why."""
    house.commit(with_steps(data={"inputs": ["data.txt"]}), **SOURCE, **{"data.txt": "1"})
    house.run()
    house.repo.commit(src__b="", **{"src/a.py": "A = 2\n"})
    again = house.run()
    assert step(again, "data").cached
    assert step(again, "train").reason == "src/a.py changed"
    assert again.status == "passed"


def test_no_cache_runs_everything(house: House) -> None:
    """`--no-cache` reads no result and still stores what it makes."""
    house.commit(DIGITS, **SOURCE)
    house.run()
    again = house.run(no_cache=True)
    assert steps(again) == ALL_GREEN
    assert step(again, "train").reason == "asked to run without the cache"
    assert step(house.run(), "train").reason == "nothing changed since run 2"


def test_a_result_whose_bytes_are_gone_is_made_anew(house: House) -> None:
    """A stored result that the cache lost is forgotten, and the step runs."""
    house.commit(DIGITS, **SOURCE)
    house.run(no_deploy=True)
    house.world.cache.sweep(set(), 0, house.clock.now() + 9)
    again = house.run(no_deploy=True)
    assert again.status == "passed"
    assert step(again, "train").status == "passed"


def test_what_declares_nothing_always_runs(house: House) -> None:
    """A step without inputs and outputs has no key, and one with `cache: false` says so."""
    house.commit(only(plain={"run": "plain"}, told={"run": "told", "inputs": ["src/"], "cache": False}), **SOURCE)
    house.run()
    again = house.run()
    assert step(again, "plain").reason == "always runs: it declares neither inputs nor outputs"
    assert step(again, "told").reason == "always runs: cache: false"
    assert steps(again) == {"check": "skipped", "plain": "passed", "told": "passed"}


# --- red -----------------------------------------------------------------------------------------------------------


def test_after_a_failure_independent_steps_go_on(house: House) -> None:
    """What needs a red step is skipped with its name, the rest runs, nothing is released, the run failed."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = 3
    shown = house.run()
    assert shown.status == "failed"
    assert shown.reason == "step train failed"
    assert steps(shown) == {
        **ALL_GREEN, "train": "failed", "package": "skipped", "serve": "skipped", "try": "skipped",
    }  # fmt: skip
    assert step(shown, "train").reason == "exit code 3"
    assert step(shown, "package").reason == "needs train, which failed"
    assert step(shown, "try").reason == "needs package, which was skipped"
    assert shown.gates[0].verdict is None
    assert shown.gates[0].reasons == ("not judged: step train failed",)
    assert [(r.status, r.reason) for r in shown.releases] == [("skipped", "step train failed")] * 2
    assert house.store.releases.of() == []
    assert house.store.requests.get(1).exit_code == 1


def test_a_red_step_is_never_cached(house: House) -> None:
    """What failed runs again next time."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["run the units"] = 1
    assert house.run(no_deploy=True).status == "failed"
    house.machine.script["run the units"] = ACTS["run the units"]
    again = house.run(no_deploy=True)
    assert (again.status, step(again, "unit").status) == ("passed", "passed")


def test_allow_failure_warns(house: House) -> None:
    """A step that may fail is warned of, and everything else goes on to a release."""
    house.commit(with_steps(unit={"allow_failure": True}), **SOURCE)
    house.machine.script["run the units"] = 1
    shown = house.run()
    assert shown.status == "passed"
    assert (step(shown, "unit").status, step(shown, "unit").reason) == ("warned", "exit code 1")
    assert [r.status for r in shown.releases] == ["serving", "serving"]


@pytest.mark.parametrize(
    ("act", "status", "reason", "exit_code"),
    [
        (Act(exit_code=-9), "failed", "was killed by signal 9", 1),
        (LOST, "errored", "its process vanished without an exit record", 3),
    ],
)
def test_how_a_process_may_end(house: House, act: Act, status: str, reason: str, exit_code: int) -> None:
    """A killed process failed; one that left no record is an error, for we cannot tell."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = act
    shown = house.run()
    assert (step(shown, "train").status, shown.status) == (status, status)
    assert (step(shown, "train").reason or "").startswith(reason)
    assert house.store.requests.get(1).exit_code == exit_code


def test_a_timeout(house: House) -> None:
    """A step that takes too long is ended, failed, and says how long it had."""
    house.commit(only(slow={"run": "slow", "timeout": 0.05}))
    house.machine.script["slow"] = NEVER
    shown = house.run()
    assert (shown.status, step(shown, "slow").reason) == ("failed", "took longer than its timeout of 0.05 s")
    assert attempts(house, "slow") == [(1, "timeout", -15)]


def test_a_red_gate_skips_the_deploy(house: House) -> None:
    """A gate that fails stops before any release; what serves stays."""
    house.commit(DIGITS, **SOURCE)
    good = house.run()
    house.repo.commit(**{"src/a.py": "A = 2\n"})
    house.machine.script["train for"] = replace(
        ACTS["train for"], files={"model/w": "", "metrics.json": '{"accuracy": 0.5}'}
    )
    bad = house.run()
    assert (bad.status, bad.reason) == ("failed", "gate learned failed")
    assert bad.gates[0].reasons == ("0.5 is below 0.9",)
    assert [(r.status, r.reason) for r in bad.releases] == [("skipped", "gate learned failed")] * 2
    assert house.served(8802) == good.version
    assert not house.store.runs.packages(house.store.runs.get(2).project, bad.version)[0].passed


def test_a_gate_that_cannot_judge(house: House) -> None:
    """A metric that nobody wrote is no pass: nothing is released."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = Act(files={"model/w": "", "metrics.json": '{"loss": 1}'})
    shown = house.run()
    assert shown.status in {"failed", "errored"}
    assert shown.gates[0].verdict not in {None, "pass"}
    assert [r.status for r in shown.releases] == ["skipped", "skipped"]


def test_missing_inputs(house: House) -> None:
    """An input that names nothing fails the run before anything starts, with a sentence for each."""
    house.commit(with_steps(unit={"inputs": ["scr/"]}), **SOURCE)
    shown = house.run()
    assert shown.status == "failed"
    assert step(shown, "check").reason == 'step unit: the input "scr/" names no file of this commit and no output'
    assert started(house) == []
    assert set(steps(shown).values()) == {"failed", "skipped"}


def test_a_file_that_does_not_compile(house: House) -> None:
    """A red check stops everything after it, and its log is named."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["1.check.1"] = 1
    shown = house.run()
    assert shown.status == "failed"
    assert step(shown, "check").reason == "a file does not compile (its log names file and line): exit code 1"
    assert started(house) == ["1.check.1"]


def test_a_rejected_release_fails_the_run(house: House) -> None:
    """A server that is found ill in one environment stops the rollout there; what needs it is not released to."""
    pipeline = digits(package={**DIGITS["package"], "start_timeout": 0.2}, steps={
        name: values for name, values in DIGITS["steps"].items() if name != "try"
    })  # fmt: skip
    house.commit(pipeline, **SOURCE)
    request = house.ask_run()
    version = house.store.requests.get(request).payload["version"]
    house.machine.statuses[version] = 503

    async def story() -> None:
        assert (await house.carry_out(request)).exit_code == 1

    house.play(story())
    shown = house.run_of(request)
    assert shown.status == "failed"
    staging, production = shown.releases
    assert (staging.status, staging.reason) == (
        "rejected",
        "replica 1 of 1 did not answer /health with 200 within 0.2 s",
    )
    assert (production.status, production.reason) == ("skipped", "needs staging, which was not released to")
    assert not any(house.machine.runs(name) for name in started(house))


def test_a_package_that_never_gets_healthy(house: House) -> None:
    """The private replica's failure is the run's, and the steps that need it are skipped with the reason."""
    house.commit(digits(package={**DIGITS["package"], "start_timeout": 0.2}), **SOURCE)
    request = house.ask_run()
    house.machine.statuses[house.store.requests.get(request).payload["version"]] = 503

    async def story() -> None:
        await house.carry_out(request)

    house.play(story())
    shown = house.run_of(request)
    assert shown.status == "failed"
    assert (step(shown, "serve").status, step(shown, "serve").reason) == (
        "failed",
        "did not answer /health with 200 within 0.2 s",
    )
    assert (step(shown, "try").status, step(shown, "try").reason) == ("skipped", "the package did not become healthy")
    assert not house.machine.runs("1.serve.1")
    assert house.store.releases.of() == []


@pytest.mark.parametrize(("code", "words"), [(5, "exit code 5"), (None, "its process vanished")])
def test_a_replica_that_ends_by_itself(house: House, code: int | None, words: str) -> None:
    """A served package that ends before it is healthy, or while steps use it, is red with its exit code."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script[SERVE] = Act(exit_code=code)
    shown = house.run()
    assert shown.status in {"failed", "errored"}
    assert (step(shown, "serve").reason or "").startswith(f"ended before it was healthy: {words}")
    assert step(shown, "try").status == "skipped"


def test_a_replica_that_ends_while_it_is_used(house: House) -> None:
    """The step that asks it may end as it likes: the replica's own end is red."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["ask the served"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.try.1")
            await house.machine.finish("1.serve.1", 1)
            await until(lambda: house.store.runs.step(1, "serve").status == "failed")
            await house.machine.finish("1.try.1")
            assert (await house.ended(request)).exit_code == 1

    house.play(story())
    assert step(house.last(), "serve").reason == "ended while steps used it: exit code 1"
    assert house.last().reason == "step serve failed"


# --- what was asked for --------------------------------------------------------------------------------------------


def test_one_step(house: House) -> None:
    """`--step` runs it and what it needs, skips the rest, releases nothing."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(step="train")
    assert (shown.status, shown.reason) == ("passed", None)
    assert steps(shown) == {
        "check": "passed",
        "data": "passed",
        "train": "passed",
        "package": "skipped",
        "serve": "skipped",
        "unit": "skipped",
        "try": "skipped",
    }
    assert step(shown, "unit").reason == "not asked for"
    assert shown.releases == ()


def test_one_step_with_the_package(house: House) -> None:
    """A step that needs the package gets its replica also where it is asked for alone."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(step="try")
    assert (shown.status, shown.reason) == ("passed", None)
    assert (steps(shown)["serve"], steps(shown)["try"], steps(shown)["unit"]) == ("passed", "passed", "skipped")


def test_no_deploy(house: House) -> None:
    """`--no-deploy` builds, tests and gates; the package passed and may be deployed by hand."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(no_deploy=True)
    assert (shown.status, shown.releases) == ("passed", ())
    assert house.store.releases.of() == []
    assert house.store.runs.packages(house.store.runs.get(1).project)[0].passed


def test_to_one_environment(house: House) -> None:
    """`--to` releases to that environment and to those it needs."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(to="staging")
    assert [r.environment for r in shown.releases] == ["staging"]
    assert (house.served(8801), house.served(8802)) == (shown.version, None)


def test_environments_stand_in_order() -> None:
    """Each environment comes after those that it needs; up to one, only what leads there."""
    pipeline = Pipeline.model_validate(
        {
            "name": "x",
            "steps": {"a": {"run": "true"}},
            "environments": {
                "live": {"port": 1, "needs": ["one", "two"]},
                "two": {"port": 2, "needs": ["one"]},
                "one": {"port": 3},
                "other": {"port": 4},
            },
        }
    )
    assert environment_order(pipeline) == ["one", "two", "live", "other"]
    assert environment_order(pipeline, "two") == ["one", "two"]


def test_a_working_tree_is_never_deployed(house: House) -> None:
    """What nobody committed is built and tested, and every environment is skipped with the reason; the run passes."""
    house.commit(DIGITS, **SOURCE)
    house.repo.put("src/a.py", "A = 2\n")
    shown = house.run(worktree=True)
    assert (shown.status, shown.dirty) == ("passed", True)
    assert shown.releases[0].reason == "a working tree that nobody committed is never deployed"
    assert not house.store.runs.packages(house.store.runs.get(1).project)[0].passed


def test_another_branch_is_not_released(house: House) -> None:
    """A commit that is not on the default branch passes, and its environments are skipped."""
    house.commit(DIGITS, **SOURCE)
    house.repo.git("checkout", "--quiet", "-b", "topic")
    sha = house.repo.commit(**{"src/a.py": "A = 2\n"})
    shown = house.run()
    assert shown.status == "passed"
    assert shown.releases[0].reason == f"commit {sha[:7]} is not on main"


# --- stopping and going on -----------------------------------------------------------------------------------------


def test_interrupted_once_more(house: House) -> None:
    """A run whose `resume` is interrupted too is not over: the next `resume` brings it to its end."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.train.1")
            await house.ended(house.ask("interrupt", {"request": request}))
            resumed = house.ask("resume", {})
            await house.machine.arrival("1.train.2")
            await house.ended(house.ask("interrupt", {"runs": [house.last().run]}))
            assert (await house.ended(resumed)).exit_code == 130
            assert not house.is_over(request)
            house.machine.script["train for"] = ACTS["train for"]
            await house.ended(house.ask("resume", {}))
            assert house.is_over(request)

    house.play(story())


def test_interrupt_and_resume(house: House) -> None:
    """Ctrl-C ends the processes and leaves a queued run; `resume` starts a new attempt and finishes."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.train.1")
            await house.ended(house.ask("interrupt", {"request": request}))
        run = house.store.runs.get(1)
        assert (run.status, run.owner, run.reason) == (
            RunStatus.QUEUED,
            NOBODY,
            "interrupted: penstock resume goes on",
        )
        assert not any(house.machine.runs(name) for name in started(house))
        assert (step(house.last(), "train").status, step(house.last(), "data").status) == ("queued", "passed")
        house.machine.script["train for"] = ACTS["train for"]
        resumed = await house.carry_out(house.ask("resume", {}))
        assert (resumed.exit_code, resumed.result) == (0, {"runs": [1]})

    house.play(story())
    assert steps(house.last()) == ALL_GREEN
    assert attempts(house, "train") == [(1, "interrupted", -15), (2, "exit", 0)]
    assert attempts(house, "data") == [(1, "exit", 0)]
    assert house.store.requests.get(request).exit_code == 0


def test_an_interrupted_run_waits_for_resume(house: House) -> None:
    """Another command of the home does not touch a run that was interrupted."""
    house.commit(only(slow={"run": "slow"}))
    house.machine.script["slow"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.slow.1")
            await house.ended(house.ask("interrupt", {"request": request}))
        before = house.store.last_event()
        await house.carry_out(house.ask("gc", {}))
        async with house.coordinating():
            await house.ended(house.ask("gc", {}))
            await house.ended(house.ask("gc", {}))
        assert house.store.last_event() == before
        assert house.store.runs.get(1).status is RunStatus.QUEUED

    house.play(story())


def test_cancel(house: House) -> None:
    """Cancel ends what runs, for good: the run is canceled, with all that had not ended."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.train.1")
            assert (await house.ended(house.ask("cancel", {"runs": [1]}))).exit_code == 0
            assert (await house.ended(request)).exit_code == 3
            again = await house.ended(house.ask("cancel", {"runs": [1]}))
            assert (again.exit_code, again.error) == (2, "run 1 has already been canceled")

    house.play(story())
    shown = house.last()
    assert shown.status == "canceled"
    assert (steps(shown)["data"], steps(shown)["train"], steps(shown)["package"]) == ("passed", "canceled", "skipped")
    assert attempts(house, "train") == [(1, "canceled", -15)]
    assert not house.machine.runs("1.train.1")


def test_cancel_of_an_interrupted_run(house: House) -> None:
    """A run that waits for `resume` can be canceled too, by a command of another time."""
    house.commit(only(slow={"run": "slow"}))
    house.machine.script["slow"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.slow.1")
            await house.ended(house.ask("interrupt", {"request": request}))
        assert (await house.carry_out(house.ask("cancel", {"runs": [1]}))).exit_code == 0
        assert house.store.runs.get(1).status is RunStatus.CANCELED
        assert house.store.requests.get(request).exit_code == 3

    house.play(story())


@pytest.mark.parametrize("dead", [False, True])
def test_cancel_ends_a_rollout(house: House, command: Command, dead: bool) -> None:
    """A run that is canceled before its switch leaves no release that starts, whether its command lives or not."""
    pipeline = digits(steps={n: s for n, s in DIGITS["steps"].items() if n != "try"})
    house.commit(pipeline, **SOURCE)
    request = house.ask_run(command.follower)
    house.machine.statuses[house.store.requests.get(request).payload["version"]] = 503

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("release-1.1")
        assert house.store.releases.get(1).status == "starting"
        if dead:
            command.die()
        async with house.coordinating():
            await house.ended(house.ask("cancel", {"runs": [1]}))
        assert house.store.releases.get(1).status == "rejected"
        assert not house.machine.runs("release-1.1")

    house.play(story())
    assert house.last().status == "canceled"


def test_an_interrupted_rollout_is_gone_on_with(house: House) -> None:
    """Ctrl-C during a rollout leaves it unfinished, and `resume` finishes the same release."""
    pipeline = digits(steps={n: s for n, s in DIGITS["steps"].items() if n != "try"})
    house.commit(pipeline, **SOURCE)
    request = house.ask_run()
    version = house.store.requests.get(request).payload["version"]
    house.machine.statuses[version] = 503

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("release-1.1")
            await house.ended(house.ask("interrupt", {"request": request}))
        assert house.store.releases.get(1).status == "starting"
        assert not house.machine.runs("release-1.1")
        del house.machine.statuses[version]
        assert (await house.carry_out(house.ask("resume", {"run": 1}))).exit_code == 0

    house.play(story())
    shown = house.last()
    assert (shown.status, [r.status for r in shown.releases]) == ("passed", ["serving", "serving"])
    assert [r.status for r in house.store.releases.of()] == ["serving", "serving"]


def test_a_second_coordinator_adopts_the_process(house: House) -> None:
    """A coordinator that goes in the midst of a step leaves its process; the next one waits for the same one."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.train.1")
        assert house.machine.runs("1.train.1")
        workspace = (await house.machine.arrival("1.train.1")).workspace
        async with house.coordinating():
            _write(workspace, ACTS["train for"].files)
            await house.machine.finish("1.train.1")
            assert (await house.ended(request)).exit_code == 0

    house.play(story())
    assert attempts(house, "train") == [(1, "exit", 0)]
    assert len(started(house)) == len(set(started(house)))
    assert steps(house.last()) == ALL_GREEN


def _write(workspace: Any, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text)


def test_a_process_that_ended_meanwhile(house: House) -> None:
    """What ended while nobody coordinated is read from its record; time that nobody watched is no timeout."""
    house.commit(only(slow={"run": "slow", "timeout": 60}))
    house.machine.script["slow"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.slow.1")
        await house.machine.finish("1.slow.1")
        house.clock.ahead += 3600
        assert (await house.carry_out(request)).exit_code == 0

    house.play(story())
    assert attempts(house, "slow") == [(1, "exit", 0)]


def test_a_process_that_overran_meanwhile(house: House) -> None:
    """A process that still runs after its time, which began under an earlier coordinator, is ended."""
    house.commit(only(slow={"run": "slow", "timeout": 60}))
    house.machine.script["slow"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.slow.1")
        house.clock.ahead += 3600
        assert (await house.carry_out(request)).exit_code == 1

    house.play(story())
    assert attempts(house, "slow") == [(1, "timeout", -15)]


def test_a_process_that_never_started(house: House) -> None:
    """An attempt that was intended and has no process is ended as infrastructure; the step gets a new one."""
    house.commit(only(slow={"run": "slow"}))
    house.machine.script["slow"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.slow.1")
        house.machine._processes.clear()
        house.store._connection.exec_driver_sql("UPDATE attempts SET status = 'starting', handle = NULL")
        async with house.coordinating():
            await house.machine.finish("1.slow.2")
            assert (await house.ended(request)).exit_code == 0

    house.play(story())
    assert attempts(house, "slow")[1:] == [(2, "exit", 0)]
    assert attempts(house, "slow")[0][:2] == (1, "infrastructure")


def test_a_replica_is_adopted_too(house: House) -> None:
    """The private replica of a run outlives a coordinator, and is ended by the next one when nobody needs it."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["ask the served"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.try.1")
        assert house.machine.runs("1.serve.1")
        async with house.coordinating():
            await house.machine.finish("1.try.1")
            assert (await house.ended(request)).exit_code == 0

    house.play(story())
    assert not house.machine.runs("1.serve.1")
    assert attempts(house, "serve")[0][:2] == (1, "exit")
    assert [name for name in started(house) if "serve" in name] == ["1.serve.1"]
    assert steps(house.last()) == ALL_GREEN


def test_a_machine_that_went_down(house: House) -> None:
    """After a reboot the live attempt is lost, its step errored, and the next run does better."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["train for"] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.train.1")
        await house.machine.vanish()
        assert (await house.carry_out(request)).exit_code == 3

    house.play(story())
    assert attempts(house, "train") == [(1, "lost", None)]
    assert house.last().status == "errored"


# --- followers -----------------------------------------------------------------------------------------------------


def test_nothing_starts_for_a_command_that_died(house: House, command: Command) -> None:
    """What ran when the command died is watched to its end; nothing new starts until `resume`."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["make data"] = NEVER
    house.machine.script["run the units"] = NEVER
    house.ask_run(command.follower)

    async def story() -> None:
        async with house.coordinating():
            data = await house.machine.arrival("1.data.1")
            unit = await house.machine.arrival("1.unit.1")
            command.die()
            await house.ended(house.ask("gc", {}))
            _write(data.workspace, ACTS["make data"].files)
            _write(unit.workspace, ACTS["run the units"].files)
            await house.machine.finish("1.data.1")
            await house.machine.finish("1.unit.1")
            await until(lambda: steps(house.last())["unit"] == "passed")
            await house.ended(house.ask("gc", {}))
            assert steps(house.last())["data"] == "passed"
            assert steps(house.last())["train"] == "queued"
            assert "1.train.1" not in started(house)
            assert (await house.ended(house.ask("resume", {"run": 1}))).exit_code == 0

    house.play(story())
    assert steps(house.last()) == ALL_GREEN
    assert house.store.requests.get(1).exit_code == 0


def test_what_waits_for_a_processor_does_not_start_either(house: House, command: Command) -> None:
    """A step that was ready but waited for a free processor stays queued once its command is dead."""
    names = ("one", "two", "three")
    house.commit(only(**{name: {"run": f"do {name}"} for name in names}))
    for name in names:
        house.machine.script[f"do {name}"] = NEVER
    house.ask_run(command.follower)

    async def story() -> None:
        async with house.coordinating():
            await until(lambda: len(started(house)) == 3)
            one, two = (name.split(".")[1] for name in started(house)[1:])
            (three,) = {*names} - {one, two}
            command.die()
            await house.ended(house.ask("gc", {}))
            await house.machine.finish(f"1.{one}.1")
            await until(lambda: steps(house.last())[one] == "passed")
            await house.ended(house.ask("gc", {}))
            assert steps(house.last())[three] == "queued"
            resumed = house.ask("resume", {"run": 1})
            await house.machine.finish(f"1.{three}.1")
            await house.machine.finish(f"1.{two}.1")
            assert (await house.ended(resumed)).exit_code == 0

    house.play(story())
    assert [attempts(house, name) for name in names] == [[(1, "exit", 0)]] * 3


def test_the_next_coordinator_watches_for_the_dead(house: House, command: Command) -> None:
    """A run whose command died is watched by whoever coordinates next, and goes no further than what lived."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["make data"] = NEVER
    house.ask_run(command.follower)

    async def story() -> None:
        async with house.coordinating():
            data = await house.machine.arrival("1.data.1")
        command.die()
        async with house.coordinating():
            _write(data.workspace, ACTS["make data"].files)
            await house.machine.finish("1.data.1")
            await until(lambda: steps(house.last())["data"] == "passed")
            await house.ended(house.ask("gc", {}))
        assert "1.train.1" not in started(house)
        assert house.last().status == "running"
        assert (await house.carry_out(house.ask("resume", {}))).exit_code == 0

    house.play(story())
    assert attempts(house, "data") == [(1, "exit", 0)]
    assert house.last().status == "passed"


def test_a_run_of_a_dead_command_does_not_begin(house: House, command: Command) -> None:
    """A request whose command died before anything began becomes a queued run; `resume` carries it out."""
    house.commit(only(plain={"run": "plain"}))
    house.ask_run(command.follower)
    command.die()

    async def story() -> None:
        async with house.coordinating():
            await until(lambda: house.store.runs.of_request(1))
            await house.ended(house.ask("gc", {}))
            assert started(house) == []
        assert house.store.runs.get(1).status is RunStatus.QUEUED
        assert (await house.carry_out(house.ask("resume", {}))).exit_code == 0

    house.play(story())
    assert house.last().status == "passed"


def test_other_verbs_of_a_dead_command_are_refused(house: House, command: Command) -> None:
    """A deploy, rollback or stop of somebody who is gone is not carried out behind their back."""
    number = house.ask("stop", {}, command.follower)
    command.die()

    async def story() -> None:
        refused = await house.carry_out(number)
        assert (refused.exit_code, refused.error) == (3, "the command that asked for it died: ask again")

    house.play(story())


def test_two_runs_at_once(house: House) -> None:
    """Two commands ask at the same time: one coordinator carries out both, and both pass."""
    house.commit(DIGITS, **SOURCE)
    requests = [house.ask_run(), house.ask_run()]

    async def story() -> None:
        async with house.coordinating():
            assert [(await house.ended(number)).exit_code for number in requests] == [0, 0]

    house.play(story())
    assert [house.run_of(number).status for number in requests] == ["passed", "passed"]


def test_an_older_commit_that_finishes_late(house: House) -> None:
    """A run that a newer one overtook is superseded: it fails nothing and changes nothing."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["make data"] = NEVER
    older = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            data = await house.machine.arrival("1.data.1")
            house.machine.script["make data"] = ACTS["make data"]
            house.repo.commit(**{"src/a.py": "A = 2\n"})
            assert (await house.ended(house.ask_run())).exit_code == 0
            _write(data.workspace, ACTS["make data"].files)
            await house.machine.finish("1.data.1")
            assert (await house.ended(older)).exit_code == 3

    house.play(story())
    assert house.run_of(older).status == "superseded"
    assert house.served(8801) == house.last().version


# --- other verbs ---------------------------------------------------------------------------------------------------


def _deploy(house: House, shown: RunView, environment: str, follower: Any = None) -> int:
    run = int(shown.run)
    payload = {"run": run, "environment": environment, "package": shown.package, "person": {"LANG": "C"}}
    return house.ask("deploy", payload, follower)


def test_deploy_by_hand(house: House) -> None:
    """A package that passed is released without a run, by the person who asked, as the newest generation."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(no_deploy=True)
    number = _deploy(house, shown, "production")

    async def story() -> None:
        assert (await house.carry_out(number)).result == {"release": 1}

    house.play(story())
    release = house.store.releases.get(1)
    assert (release.generation, release.request, release.actor) == (number, number, "ada")
    assert house.served(8802) == shown.version


def test_a_deploy_that_is_rejected(house: House) -> None:
    """Where the package does not become healthy the environment keeps what it had, and the sentence says why."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(no_deploy=True)
    house.router.refusal, house.router.refusals = "Envoy refused it", 1000
    number = _deploy(house, shown, "staging")

    async def story() -> None:
        refused = await house.carry_out(number)
        assert (refused.exit_code, refused.error) == (1, "staging keeps what it had: Envoy refused it")

    house.play(story())
    assert house.served(8801) is None


def test_a_deploy_whose_command_dies(house: House, command: Command) -> None:
    """A rollout by hand ends with its command, before the switch."""
    house.commit(DIGITS, **SOURCE)
    shown = house.run(no_deploy=True)
    house.machine.statuses[shown.version] = 503
    number = _deploy(house, shown, "staging", command.follower)

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("release-1.1")
            command.die()
            refused = await house.ended(number)
        assert refused.exit_code == 1
        assert not house.machine.runs("release-1.1")
        await house.carry_out(house.ask("gc", {}))
        assert house.store.releases.get(1).status == "rejected"

    house.play(story())


def test_rollback_and_stop(house: House) -> None:
    """A rollback gives the traffic back to the release before; a stop ends all that the home serves."""
    house.commit(DIGITS, **SOURCE)
    first = house.run()
    house.repo.commit(**{"src/a.py": "A = 2\n"})
    second = house.run()
    assert (house.served(8802), second.releases[1].replaced) == (second.version, first.version)
    payload = {"project": house.store.runs.get(1).project, "environment": "production"}

    async def story() -> None:
        async with house.coordinating():
            assert (await house.ended(house.ask("rollback", payload))).exit_code == 0
            assert (house.served(8801), house.served(8802)) == (second.version, first.version)
            refused = await house.ended(house.ask("rollback", payload))
            assert refused.exit_code == 2
            stopped = await house.ended(house.ask("stop", {}))
            assert stopped.result == {"stopped": [f"production {first.version}", f"staging {second.version}"]}
        assert house.router.routes == ()

    house.play(story())
    assert not any(house.machine.runs(name) for name in started(house))


def test_gc(house: House) -> None:
    """Gc removes what nothing names any more, and a run afterwards still knows its results."""
    house.commit(DIGITS, **SOURCE)
    house.run()
    folder = house.world.home.run(1) / "work"
    assert folder.exists()

    async def story() -> None:
        swept = await house.carry_out(house.ask("gc", {}))
        assert (swept.result or {})["results"] == 0
        assert not folder.exists()
        house.clock.ahead += 31 * 86400
        swept = await house.carry_out(house.ask("gc", {"days": 30}))
        assert (swept.result or {})["results"] > 0

    house.play(story())
    assert house.run(no_cache=True).status == "passed"


def test_nothing_to_resume(house: House) -> None:
    """Where no run is open, `resume` has nothing to do and that is well."""

    async def story() -> None:
        assert (await house.carry_out(house.ask("resume", {}))).exit_code == 0

    house.play(story())


@pytest.mark.parametrize(
    ("kind", "payload", "code", "sentence"),
    [
        ("resume", {"run": 1}, 2, "nothing to resume: run 1 has already passed"),
        ("cancel", {"runs": [1]}, 2, "run 1 has already passed"),
        ("cancel", {"runs": [9]}, 2, "there is no run 9 in this home: penstock runs lists them"),
        ("interrupt", {"request": 99}, 2, "the run was not begun yet"),
        ("rollback", {"project": "x", "environment": "live"}, 2, "live has no earlier release to go back to"),
    ],
)
def test_what_cannot_be_done_is_refused(
    house: House, kind: str, payload: dict[str, Any], code: int, sentence: str
) -> None:
    """A verb that makes no sense now is refused with one sentence and its exit code."""
    house.commit(only(plain={"run": "plain"}))
    house.run()

    async def story() -> None:
        refused = await house.carry_out(house.ask(kind, payload))
        assert (refused.exit_code, refused.error) == (code, sentence)

    house.play(story())


def test_a_defect_is_told_and_stops_nobody_else(house: House) -> None:
    """A request that meets a defect of ours is refused with a sentence, and the next one is carried out."""

    async def story() -> None:
        async with house.coordinating():
            refused = await house.ended(house.ask("deploy", {"run": None}))
            assert refused.exit_code == 3
            assert (refused.error or "").startswith("a defect of Penstock (")
            assert (await house.ended(house.ask("gc", {}))).exit_code == 0

    house.play(story())


def test_a_source_that_is_gone(house: House) -> None:
    """A run whose mirror cannot be read any more is errored with a sentence, and its request ends."""
    house.commit(only(plain={"run": "plain"}))
    request = house.ask_run()
    mirror = house.store.requests.get(request).payload["mirror"]
    (house.world.home.path / mirror / "HEAD").unlink()

    async def story() -> None:
        assert (await house.carry_out(request)).exit_code == 3

    house.play(story())
    shown = house.last()
    assert shown.status == "errored"
    assert shown.reason


def test_a_step_that_cannot_be_placed(house: House) -> None:
    """What our own machinery cannot do is an error of the step with its sentence; others go on."""
    house.commit(only(odd={"run": "odd"}, plain={"run": "plain"}))
    blocker = house.world.home.run(1) / "work"
    blocker.parent.mkdir(parents=True)
    blocker.write_text("a file where a folder should be")
    shown = house.run()
    assert shown.status == "errored"
    assert {s.status for s in shown.steps} <= {"errored", "skipped"}
    assert all(s.reason for s in shown.steps)
    blocker.unlink()
    assert house.run().status == "passed"


def test_an_lfs_pointer_is_told(house: House) -> None:
    """An input that is a Git LFS pointer errors its step with a sentence that says so."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n"
    house.commit(only(read={"run": "read", "inputs": ["data.bin"]}), **{"data.bin": pointer})
    shown = house.run()
    assert (step(shown, "read").status, shown.status) == ("errored", "errored")
    assert "data.bin is a Git LFS pointer" in (step(shown, "read").reason or "")


# --- again, and with a runtime -------------------------------------------------------------------------------------


def test_rerun_of_what_failed_while_the_run_goes_on(house: House) -> None:
    """Failed steps of a run that goes on are opened again, with what was skipped for them; the run then passes."""
    house.commit(DIGITS, **SOURCE)
    house.machine.script["run the units"] = NEVER
    house.machine.script["train for"] = 1
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            unit = await house.machine.arrival("1.unit.1")
            await until(lambda: steps(house.last())["package"] == "skipped")
            house.machine.script["train for"] = ACTS["train for"]
            opened = await house.ended(house.ask("rerun", {"run": 1}))
            assert (opened.result or {})["steps"] == ["train", "package", "serve", "try"]
            _write(unit.workspace, ACTS["run the units"].files)
            await house.machine.finish("1.unit.1")
            assert (await house.ended(request)).exit_code == 0
            refused = await house.ended(house.ask("rerun", {"run": 1}))
            assert refused.error == "run 1 has already passed: rerun it once more, as a new run"

    house.play(story())
    assert steps(house.last()) == ALL_GREEN
    assert attempts(house, "train") == [(1, "exit", 1), (2, "exit", 0)]
    assert house.last().gates[0].verdict == "pass"


def test_a_runtime_is_locked_and_made(house: House) -> None:
    """The lock is made once and kept, the environment made of it, and every step and server gets it in front."""
    house.commit(digits(runtime={"requirements": "requirements.txt", "path": ["src"]}), **SOURCE, **LOCKED)
    house.machine.script["pip compile"] = Act(files={"penstock.lock": "nothing==1 --hash=sha256:00\n"})
    first = house.run(to="staging")
    assert first.status == "passed"
    assert (steps(first)["lock"], steps(first)["runtime"]) == ("passed", "passed")
    train = next(s for s in house.machine.started if s.id == "1.train.1")
    environment = train.variables["VIRTUAL_ENV"]
    assert train.variables["PATH"].startswith(f"{environment}/bin:")
    assert train.variables["PYTHONPATH"] == str(train.workspace / "src")
    served = next(s for s in house.machine.started if s.id == "release-1.1")
    assert served.variables["VIRTUAL_ENV"] == environment
    assert served.variables["PYTHONPATH"] == str(served.workspace / "src")
    again = house.run(to="staging")
    assert step(again, "lock").cached
    assert step(again, "train").cached


@pytest.mark.parametrize(("part", "name"), [("pip compile", "lock"), ("building.py", "runtime")])
def test_a_runtime_that_cannot_be_made(house: House, part: str, name: str) -> None:
    """A lock or environment that fails is red with where to look, and nothing that needs it starts."""
    house.commit(digits(runtime={"requirements": "requirements.txt"}), **SOURCE, **LOCKED)
    house.machine.script["pip compile"] = Act(files={"penstock.lock": "nothing==1 --hash=sha256:00\n"})
    house.machine.script[part] = Act(exit_code=2, output="no such package\n")
    shown = house.run()
    assert (shown.status, shown.reason) == ("failed", f"step {name} failed")
    assert (step(shown, name).reason or "").endswith("(its log says why): exit code 2")
    assert steps(shown)["train"] == "skipped"


def test_requirements_that_are_missing(house: House) -> None:
    """A runtime's file that the commit does not have errors its step with a sentence."""
    house.commit(digits(runtime={"requirements": "requirements.txt"}), **SOURCE)
    shown = house.run()
    assert shown.status == "errored"
    assert "requirements.txt" in (step(shown, "lock").reason or "")


def test_what_the_cache_lost_is_made_again(house: House) -> None:
    """A step that misses what another gave has it made again, and whoever runs meanwhile is left alone."""
    made = {"run": "make data", "inputs": ["src/"], "outputs": ["data/"]}
    use = {"inputs": ["data/"]}
    pipeline = only(
        data=made,
        pause={"run": "pause"},
        first={"run": "first", **use},
        last={"run": "last", "needs": ["pause"], **use},
    )
    house.commit(pipeline, **SOURCE)
    for name in ("pause", "first"):
        house.machine.script[name] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.first.1")
            await house.machine.arrival("1.pause.1")
            house.world.cache.sweep(set(), 0, house.clock.now() + 9)
            await house.machine.finish("1.pause.1")
            await until(lambda: steps(house.last())["last"] == "passed")
            await house.machine.finish("1.first.1")
            assert (await house.ended(request)).exit_code == 0

    house.play(story())
    assert attempts(house, "data") == [(1, "exit", 0), (2, "exit", 0)]
    assert attempts(house, "first") == [(1, "exit", 0)]
    assert attempts(house, "last")[-1][1:] == ("exit", 0)
    assert set(steps(house.last()).values()) == {"passed"}


def test_rerun_of_what_failed_as_a_new_run(house: House) -> None:
    """A new run of what failed takes over what passed before, also where it is never cached."""
    house.commit(with_steps(extra={"run": "extra"}), **SOURCE)
    house.machine.script["run the units"] = 1
    assert house.run(no_deploy=True).status == "failed"
    house.machine.script["run the units"] = ACTS["run the units"]
    again = house.run(no_deploy=True, failed_of=1)
    assert again.status == "passed"
    assert (step(again, "extra").status, step(again, "extra").reason) == ("skipped", "passed in run 1")
    assert step(again, "unit").status == "passed"
    assert again.metrics == {"train.accuracy": 0.95}
