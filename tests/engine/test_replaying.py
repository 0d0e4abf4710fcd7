"""The replay of recorded requests as a step of a run: what it is given, what it leaves, and what happens to it."""

import json
from typing import Any

import pytest

from engine.builders import ACTS, DIGITS, House, step, until
from penstock.engine.measuring import Measurement
from penstock.engine.replaying import RESULT
from penstock.runners.scripted import LOST, NEVER, Act
from penstock.runs import RunView

SOURCE = {"src__a.py": "A = 1\n", "asked.jsonl": '{"path": "/"}\n'}
REPLAY = "penstock.engine.measuring"
GOOD = {"requests": 1, "agreement": 1, "errors": 0, "p99_ms": 2.5}


def pipeline(**requests: Any) -> dict[str, Any]:
    """The example, whose package is asked recorded requests, and two gates on what comes of that."""
    package = {**DIGITS["package"], "requests": {"file": "asked.jsonl", **requests}}
    gates = {
        "parity": {"metric": "replay.agreement", "equals": 1},
        "quick": {"metric": "replay.p99_ms", "at_most": 5},
    }
    return {**DIGITS, "package": package, "gates": gates}


def left(house: House, metrics: dict[str, float], note: str | None = None) -> None:
    """From now on a replay leaves these metrics."""
    house.machine.script[REPLAY] = Act(files={RESULT: json.dumps({"metrics": metrics, "note": note})}, output="said\n")


def verdicts(shown: RunView) -> dict[str, str | None]:
    return {gate.name: gate.verdict for gate in shown.gates}


def asked(house: House, run: int = 1) -> Measurement:
    """What a replay was asked to measure."""
    (spec,) = (spec for spec in house.machine.started if spec.id == f"{run}.replay.1")
    return Measurement(**json.loads(spec.command.partition(" '")[2].removesuffix("'")))


def test_what_is_served_is_asked_and_judged(house: House) -> None:
    """The program finds the requests alone, is told where to ask and how, and gates judge what it left."""
    house.commit(pipeline(tolerance=0.5, repeat=3), **SOURCE)
    left(house, GOOD)
    shown = house.run()
    assert (shown.status, verdicts(shown)) == ("passed", {"parity": "pass", "quick": "pass"})
    assert shown.metrics == {"train.accuracy": 0.95, **{f"replay.{name}": value for name, value in GOOD.items()}}
    assert house.machine.found["1.replay.1"] == {"asked.jsonl"}
    (spec, serve) = (next(s for s in house.machine.started if s.id == f"1.{name}.1") for name in ("replay", "serve"))
    wanted = asked(house)
    assert (wanted.file, wanted.tolerance, wanted.repeat) == ("asked.jsonl", 0.5, 3)
    assert wanted.port == int(serve.variables["PORT"])
    assert wanted.pid == house.machine._processes["1.serve.1"].handle.pid
    assert not spec.contain
    assert step(shown, "replay").log


def test_what_the_trained_model_said(house: House) -> None:
    """The file may be what a step wrote; the package need not hold it."""
    steps = {**DIGITS["steps"], "train": {**DIGITS["steps"]["train"], "outputs": ["model/", "said/"]}}
    house.commit({**pipeline(file="said/by-train.jsonl"), "steps": steps}, **SOURCE)
    train = ACTS["train for"]
    house.machine.script["train for"] = Act(files={**train.files, "said/by-train.jsonl": '{"path": "/"}'})
    left(house, GOOD)
    assert house.run().status == "passed"
    assert house.machine.found["1.replay.1"] == {"said/by-train.jsonl"}


def test_what_is_known_is_not_asked_again(house: House) -> None:
    """The same package and requests give the same metrics without a process; other requests are asked."""
    house.commit(pipeline(), **SOURCE)
    left(house, GOOD)
    first, second = house.run(), house.run()
    assert (step(second, "replay").cached, step(second, "replay").reason) == (True, "nothing changed since run 1")
    assert (second.metrics, verdicts(second)) == (first.metrics, {"parity": "pass", "quick": "pass"})
    assert step(second, "serve").reason == "no step needed it"
    house.commit(pipeline(), **{**SOURCE, "asked.jsonl": '{"path": "/other"}\n'})
    assert step(house.run(), "replay").status == "passed"
    house.commit(pipeline(repeat=2), **SOURCE)
    assert step(house.run(), "replay").status == "passed"
    assert step(house.run(no_cache=True), "replay").status == "passed"


def test_errors_are_for_gates_and_not_kept(house: House) -> None:
    """A replay with errors passes with a note, its gates do not; the next run asks again."""
    house.commit(pipeline(), **SOURCE)
    left(house, {"requests": 2, "agreement": 0.5, "errors": 0.5}, "1 of 2 requests were not answered as expected")
    shown = house.run()
    assert (step(shown, "replay").status, step(shown, "replay").reason) == (
        "passed",
        "1 of 2 requests were not answered as expected",
    )
    assert (shown.status, verdicts(shown)) == ("failed", {"parity": "fail", "quick": "errored"})
    left(house, GOOD)
    again = house.run()
    assert (again.status, step(again, "replay").cached) == ("passed", False)


@pytest.mark.parametrize(
    ("act", "status", "words"),
    [
        (Act(1, files={RESULT: '{"fault": "asked.jsonl:7: no"}'}), "failed", "asked.jsonl:7: no"),
        (Act(1), "failed", "the requests could not be asked: exit code 1"),
        (Act(0), "failed", "the requests could not be asked: exit code 0"),
        (Act(0, files={RESULT: '{"met'}), "failed", "the requests could not be asked: exit code 0"),
        (LOST, "errored", "the requests could not be asked: its process vanished"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_red(house: House, act: Act, status: str, words: str) -> None:
    """A file that is none, and a program that left nothing, are the step's own end; its gates judge nothing."""
    house.commit(pipeline(), **SOURCE)
    house.machine.script[REPLAY] = act
    shown = house.run()
    assert step(shown, "replay").status == status
    assert (step(shown, "replay").reason or "").startswith(words)
    assert verdicts(shown) == {"parity": None, "quick": None}
    assert house.store.releases.of() == []


def test_an_output_without_the_file(house: House) -> None:
    """Where the step that should write the requests wrote others, the replay says which file is missing."""
    house.commit(pipeline(file="model/asked.jsonl"), **SOURCE)
    reason = step(house.run(), "replay").reason
    assert reason == "there is no file model/asked.jsonl to take requests from"


def test_nothing_is_asked_of_what_is_not_healthy(house: House) -> None:
    """The replica's failure is the run's; the replay is skipped as every step that needs it."""
    house.commit({**pipeline(), "package": {**pipeline()["package"], "start_timeout": 0.2}}, **SOURCE)
    request = house.ask_run()
    house.machine.statuses[house.store.requests.get(request).payload["version"]] = 503

    async def story() -> None:
        await house.carry_out(request)

    house.play(story())
    shown = house.run_of(request)
    assert (shown.status, step(shown, "serve").status) == ("failed", "failed")
    assert step(shown, "replay").reason == "the package did not become healthy"


def test_a_replay_outlives_its_coordinator(house: House) -> None:
    """One coordinator goes in the midst of it, the next finds both processes and takes what came of them."""
    house.commit(pipeline(), **SOURCE)
    house.machine.script[REPLAY] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.replay.1")
            await until(lambda: house.store.runs.step(1, "replay").status == "running")
        workspace = (await house.machine.arrival("1.replay.1")).workspace
        async with house.coordinating():
            (workspace / RESULT).write_text(json.dumps({"metrics": GOOD}))
            await house.machine.finish("1.replay.1")
            assert (await house.ended(request)).exit_code == 0

    house.play(story())
    assert verdicts(house.last()) == {"parity": "pass", "quick": "pass"}
    assert [a.number for a in house.store.runs.attempts(1, "replay")] == [1]
    assert house.store.actions.newest(house.store.runs.get(1).project, "replay") is not None


def test_a_replay_can_be_canceled(house: House) -> None:
    """Cancel ends the program and the replica; nothing of either is left."""
    house.commit(pipeline(), **SOURCE)
    house.machine.script[REPLAY] = NEVER
    request = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await house.machine.arrival("1.replay.1")
            await house.ended(house.ask("cancel", {"runs": [1]}))
            assert (await house.ended(request)).exit_code == 3

    house.play(story())
    assert step(house.last(), "replay").status == "canceled"
    assert not any(house.machine.runs(name) for name in ("1.replay.1", "1.serve.1"))


def test_one_replay_alone(house: House) -> None:
    """`--step replay` runs what it needs and nothing else."""
    house.commit(pipeline(), **SOURCE)
    left(house, GOOD)
    shown = house.run(step="replay")
    assert step(shown, "replay").status == "passed"
    assert step(shown, "unit").reason == "not asked for"
