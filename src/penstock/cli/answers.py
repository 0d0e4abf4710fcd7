"""What a command says at its end: refusals as errors, a run summed up, where to look next."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from penstock.errors import PenstockError
from penstock.runs import RequestStatus, RunView

if TYPE_CHECKING:
    from penstock.engine.world import World
    from penstock.store.contract import Request

TAIL = 12
"""Lines of a failed step's log that the summary shows."""
TAIL_BYTES = 16_384


class RefusedError(PenstockError):
    """The coordinator refused a request; the sentence is its own."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def refused(request: "Request") -> None:
    """Raise the refusal of a request, if it was refused."""
    if request.status is RequestStatus.REFUSED:
        raise RefusedError(request.error or "the request was refused", request.exit_code or 3)


def sum_up(world: "World", request: "Request", run: int | None, *, as_json: bool) -> int:
    """Print how a run ended; returns the exit code (130 where it was interrupted)."""
    from penstock.cli.progress import display, summary
    from penstock.engine.views import to_json, view

    code = 130 if request.exit_code is None else request.exit_code
    if run is None:
        return code
    shown = view(world.store, world.store.runs.get(run))
    if as_json:
        typer.echo(json.dumps(to_json(shown), indent=2))
        return code
    tails = {s.name: tail(world, run, s.name) for s in shown.steps if s.status in {"failed", "errored"}}
    if sys.stderr.isatty():
        typer.echo()
    display(
        summary(shown, next_commands(shown), {k: v for k, v in tails.items() if v}, gates=not sys.stderr.isatty()),
        sys.stdout,
    )
    return code


def next_commands(shown: RunView) -> list[str]:
    """Where to look next, most useful first."""
    red = [s.name for s in shown.steps if s.status in {"failed", "errored"}]
    if shown.status == "waiting":
        waiting = [r.environment for r in shown.releases if r.status == "waiting"]
        return [*(f"penstock approve {shown.run} {name}" for name in waiting), f"penstock show {shown.run}"]
    if shown.status == "queued":
        return [f"penstock resume {shown.run}", f"penstock cancel {shown.run}"]
    if red:
        return [f"penstock logs {shown.run} {red[0]}", f"penstock show {shown.run}"]
    if any(r.status == "serving" for r in shown.releases):
        return ["penstock status", f"penstock lineage {shown.version}"]
    return [f"penstock show {shown.run}"]


def tail(world: "World", run: int, step: str) -> list[str]:
    """The last lines of a step's last attempt, as text."""
    from penstock.engine.logfiles import tail as last_lines
    from penstock.engine.views import log_range

    attempts = world.store.runs.attempts(run, step)
    if not attempts:
        return []
    path, start, end = log_range(attempts[-1])
    try:
        return last_lines(Path(path), start, end, TAIL, TAIL_BYTES)
    except PenstockError as error:  # how the run ended is told even where its log cannot be read
        return [str(error)]
