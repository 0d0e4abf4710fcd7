"""The verb `baseline`: what the gates of a project compare with, and who may lower a number that the file fixes."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.delivering import ProjectOption
from penstock.cli.settings import read_settings
from penstock.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from penstock.baselines import Change
    from penstock.commits import Commit
    from penstock.engine.baselines import Baselines, Reference
    from penstock.engine.world import World
    from penstock.pipelines import Gate, Pipeline
    from penstock.store.contract import Project, Run

app = typer.Typer(invoke_without_command=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout.")]
SHOWN = 8
"""Characters of a digest that a person is shown."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A gate and what it compares with now. Where nothing is found yet all but the first four is null or empty.

    `data` is the digest of the data of each step that is judged; `since` is when the run passed or was released, or the
    number was set, in seconds since the epoch.
    """

    gate: str
    rule: str
    baseline: str
    sentence: str
    value: float | None = None
    version: str | None = None
    run: int | None = None
    commit: str | None = None
    package: str | None = None
    data: Mapping[str, str] | None = None
    hardware: Mapping[str, Any] | None = None
    seeds: Mapping[str, str] | None = None
    since: float | None = None


@app.callback()
def baseline(context: typer.Context, *, project: ProjectOption = None, json_: JsonOption = False) -> None:
    """Show what each gate of a project compares with now, and where that comes from; approve a lower fixed number.

    Example: penstock baseline
    """
    if context.invoked_subcommand is not None:
        return
    from penstock.cli.delivering import project_here
    from penstock.cli.wiring import open_world

    with open_world(read_settings()) as world:
        rows = list(_rows(_asked(world, project_here(world, project))))
    if json_:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    _show([(row.gate, row.rule, row.sentence) for row in rows], "no gate of the file compares with a baseline")


@app.command("approve")
def approve(
    gate: Annotated[str, typer.Argument(metavar="GATE", help="The gate; a member of another one as whole.1.")],
    *,
    to: Annotated[float, typer.Option("--to", metavar="NUMBER", help="The lowest number that the file may fix.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever reads the record.")],
    project: ProjectOption = None,
) -> None:
    """Allow the file to lower the fixed baseline of a gate. Who did, when and why stays on record.

    Example: penstock baseline approve learned --to 0.9 --reason "the new test set is harder"
    """
    from penstock.cli.delivering import ask, project_here
    from penstock.cli.wiring import open_world
    from penstock.commits import printable
    from penstock.gates import written

    why = printable(reason).strip()
    if not math.isfinite(to) or not why:
        raise UsageError(
            "an approval needs a number and a reason: penstock baseline approve GATE --to 0.9 --reason TEXT"
        )
    settings = read_settings()
    with open_world(settings) as world:
        chosen = project_here(world, project)
        payload = {"project": chosen.id, "gate": gate, "to": to, "reason": why}
        done = ask(world, settings, "approve_baseline", payload).result or {}
    typer.echo(
        f"the file may lower gate {gate} from {written(done['from'])} to {written(to)}: "
        "the next run of the default branch that passes with it does"
    )


@app.command("history")
def history(
    gate: Annotated[str | None, typer.Argument(metavar="[GATE]", help="One gate; default: all.")] = None,
    *,
    project: ProjectOption = None,
    json_: JsonOption = False,
) -> None:
    """Show every change of the numbers that a project's file fixes as baselines, oldest first.

    Example: penstock baseline history learned
    """
    from penstock.cli.delivering import project_here
    from penstock.cli.wiring import open_world

    with open_world(read_settings()) as world:
        chosen = project_here(world, project)
        found = world.store.baselines.changes(chosen.id, gate)
        if gate is not None and not found:
            known = ", ".join(dict.fromkeys(c.gate for c in world.store.baselines.changes(chosen.id))) or "none yet"
            raise NotFoundError(f'gate "{gate}" has no record of a fixed baseline; there is {known}')
    if json_:
        typer.echo(json.dumps([asdict(change) for change in found], indent=2))
        return
    silence = "no fixed baseline stands yet: a passed run of the default branch sets one"
    _show([(change.gate, *_told(change)) for change in found], silence)


def _told(change: "Change") -> tuple[str, str]:
    """What changed, and the sentence that says who made it, when and why."""
    from penstock.cli.pictures import moment
    from penstock.gates import written

    before = "" if change.before is None else f"{written(change.before)} to "
    by = f"{change.actor}: {change.reason}"
    if change.run is not None:
        by = f"run {change.run} of commit {(change.sha or '')[:7]}, asked for by {change.actor}"
    source = "" if change.source is None else f"; source: {change.source}"
    return f"{change.event} {before}{written(change.value)}", f"{moment(change.at)}, by {by}{source}"


# --- what stands now -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """The newest run whose file speaks for its project."""

    world: "World"
    run: "Run"
    pipeline: "Pipeline"
    commit: "Commit"


def _asked(world: "World", project: "Project") -> _Asked:
    """The newest run of a commit that is trusted, else the newest. Raises NotFoundError where there is none."""
    from penstock.commits import Commit
    from penstock.pipelines import Pipeline

    rows = world.store.baselines.any(project.id, 100)
    if not rows:
        raise NotFoundError(f"{project.name} has no run yet: penstock run makes one")
    chosen = next((row for row in rows if not row.dirty and not row.scope), rows[0])
    run = world.store.runs.get(chosen.run)
    commit = Commit(**{**run.commit, "branches": tuple(run.commit["branches"])})
    return _Asked(world, run, Pipeline.model_validate(run.pipeline), commit)


def _rows(asked: _Asked) -> Iterator[Shown]:
    from penstock.baselines import leaves_of
    from penstock.engine.baselines import Baselines

    baselines = Baselines(asked, for_next=True)
    for gate in asked.pipeline.gates.values():
        for place, leaf in leaves_of(gate):
            if leaf.baseline is not None:
                yield _row(asked, baselines, place, leaf)


def _row(asked: _Asked, baselines: "Baselines", place: str, gate: "Gate") -> Shown:
    name = gate.baseline
    if name is None:
        raise AssertionError("a gate without a baseline is not shown")
    rule = f"{gate.about} {gate.rule}"
    if name.kind == "fixed":
        return _fixed(asked, place, rule, name.fixed or 0.0)
    found = baselines.find(name)
    if found is None:
        return Shown(place, rule, name.name, baselines.lacking(name))
    return _found(asked, place, rule, gate, found)


def _fixed(asked: _Asked, place: str, rule: str, number: float) -> Shown:
    """What stands of a fixed number, which is not always what the file says."""
    from penstock.baselines import standing
    from penstock.gates import written

    changes = asked.world.store.baselines.changes(asked.run.project, place)
    stands, name = standing(changes), f"fixed {written(number)}"
    if stands is None:
        return Shown(place, rule, name, "no run of the default branch passed with it yet", number)
    last = next(change for change in reversed(changes) if change.event != "approved")
    what, who = _told(last)
    sentence = f"{what}: {who}"
    if stands.least < stands.value:
        sentence += f"; {written(stands.least)} is approved"
    if number < stands.least:
        sentence += f"; the file says {written(number)}, which is not approved"
    value = max(number, stands.least)
    return Shown(place, rule, name, sentence, value, run=last.run, commit=last.sha, since=last.at)


def _found(asked: _Asked, place: str, rule: str, gate: "Gate", found: "Reference") -> Shown:
    from penstock.baselines import Origin
    from penstock.matrices import judged_steps

    origin = found.origin or Origin()
    data = {name: origin.data[name] for name in judged_steps(asked.pipeline, gate) if name in origin.data}
    value = _value(asked, place, gate, found.run)
    return Shown(
        gate=place,
        rule=rule,
        baseline=str(gate.baseline.name if gate.baseline else ""),
        sentence=_sentence(found, value, data, origin),
        value=value,
        version=found.version,
        run=found.run,
        commit=found.sha or None,
        package=found.package,
        data=data,
        hardware=origin.hardware,
        seeds=origin.seeds,
        since=found.since,
    )


def _value(asked: _Asked, place: str, gate: "Gate", run: int) -> float | None:
    """The metric's value in a run, else what the gate of this name found there."""
    from penstock.gates import aggregated

    if gate.metric is not None:
        return aggregated(gate, asked.world.store.runs.metrics(run), ())
    return next((judged.value for judged in asked.world.store.runs.gates(run) if judged.name == place), None)


def _sentence(found: "Reference", value: float | None, data: Mapping[str, str], origin: Any) -> str:
    """What was found, and where it comes from, in words."""
    from penstock.cli.pictures import moment
    from penstock.gates import written

    machine = origin.hardware
    parts = [
        found.words if value is None else f"{found.words} has {written(value)}",
        f"run {found.run}",
        f"commit {found.sha[:7]}" if found.sha else "",
        f"package {found.package[:SHOWN]}" if found.package else "",
        *(f"data of {step} {digest[:SHOWN]}" for step, digest in data.items()),
        _machine(machine) if machine else "",
        " ".join(f"{name}={seed}" for name, seed in origin.seeds.items()),
        moment(found.since),
    ]
    return ", ".join(part for part in parts if part)


def _machine(hardware: Mapping[str, Any]) -> str:
    gpus = " ".join(kind or "GPU" for kind in hardware["gpus"])
    processor = hardware["processor"] or hardware["machine"]
    return f"{hardware['cpus']} × {processor}{f' with {gpus}' if gpus else ''}"


def _show(rows: "list[tuple[str, str, str]]", silence: str) -> None:
    from rich.text import Text

    from penstock.cli.pictures import Picture, Row, safe, stacked
    from penstock.cli.progress import display

    if not rows:
        typer.echo(silence)
        return
    lines = [Row(Text("·", "dim"), (safe(name, "bold"), safe(what)), safe(note), 1000) for name, what, note in rows]
    display(Picture(lambda width: stacked(lines, width)), sys.stdout)
