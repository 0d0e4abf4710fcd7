"""A home with a bit of everything, as a value: for the page, without a home."""

from penstock.charts import Chart
from penstock.server.states import EnvironmentState, PassedState, RepositoryState, RunState, ServeState, State
from penstock.standings import Seen, Standing

NOW = 1_790_000_000.0
SHA = "4f1c2ab9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f"


def run(number: int, status: str, title: str, **more: object) -> RunState:
    """A run that began some minutes ago."""
    values: dict[str, object] = {
        "run": number,
        "project": "digits",
        "version": f"1.4.0.dev{number}+g{SHA[:7]}",
        "commit": SHA,
        "branch": "main",
        "title": title,
        "trigger": "push",
        "status": status,
        "reason": None,
        "created": NOW - 7200 / number,
        "started": NOW - 7190 / number,
        "ended": NOW - 7000 / number,
        "steps": {"passed": 6, "cached": 3},
        "running": (),
        "red": (),
    }
    return RunState(**{**values, **more})  # type: ignore[arg-type]


def environment(name: str, status: str, **more: object) -> EnvironmentState:
    values: dict[str, object] = {
        "project": "digits",
        "environment": name,
        "status": status,
        "version": f"1.4.0.dev11+g{SHA[:7]}",
        "url": "http://127.0.0.1:8801",
        "replicas": 2,
        "wanted": 2,
        "since": NOW - 3600,
        "note": None,
    }
    return EnvironmentState(**{**values, **more})  # type: ignore[arg-type]


def trial(**more: object) -> Standing:
    """A canary that goes on."""
    values: dict[str, object] = {
        "strategy": "canary",
        "width": 0.05,
        "widths": (0.05, 0.5),
        "until": NOW + 1200,
        "verdict": "inconclusive",
        "reason": "0 errors in 100 requests of the canary do not exclude a rate of 1 %",
        "missing": 347,
        "at_canary": Seen(100, 0, None, None),
        "at_stable": Seen(1900, 2, 2.25, 11.4),
        "charts": (Chart("level", "error rate", 0.0, 0.0, 0.0331, None, 0.01, 0.95, 100, None, "bets"),),
    }
    return Standing(**{**values, **more})  # type: ignore[arg-type]


def state(**more: object) -> State:
    """A busy home."""
    values: dict[str, object] = {
        "at": NOW,
        "serve": ServeState(4711, NOW - 86400 * 3, coordinates=True),
        "repositories": [
            RepositoryState("/home/ada/digits", NOW - 4, None),
            RepositoryState("https://example.org/team/houses", NOW - 31, "https://example.org cannot be reached"),
        ],
        "environments": [
            environment("staging", "serving"),
            environment(
                "production",
                "serving",
                version="1.4.0.dev9+g88aa12f",
                url="http://127.0.0.1:8800",
                tried="1.4.0.dev11",
                rollout=trial(),
            ),
        ],
        "runs": [
            run(
                12,
                "running",
                "Train for eight epochs, with a warm-up of the learning rate",
                ended=None,
                steps={"passed": 2, "cached": 3, "running": 1, "queued": 4},
                running=["train"],
            ),
            run(11, "passed", "Read the test set once"),
            run(
                10,
                "failed",
                "A smaller model",
                reason="gate no_regression failed",
                steps={"passed": 5, "cached": 2, "failed": 1, "skipped": 2},
                red=["evaluate"],
            ),
            run(9, "passed", "Round the corners of the digits", trigger="schedule"),
            run(8, "errored", "Move the data", reason="step data errored", steps={"errored": 1, "skipped": 8}),
            run(7, "canceled", "Try it the other way round", branch="idea/other-way", steps={"canceled": 9}),
        ],
        "passed_over": [
            PassedState("digits", "main", SHA, "it touches none of on.push.paths: src/**", NOW - 900),
            PassedState("digits", "idea", SHA, 'penstock.yaml:3:5: unknown key "step"; nearest: "steps"', NOW - 5000),
        ],
    }
    return State(**{**values, **more})  # type: ignore[arg-type]
