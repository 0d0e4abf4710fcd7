"""The verb `gate`: what the gates on evidence will be able to say, before a run asks them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.running import FileOption, JsonOption, LocationArgument, RefOption, WorktreeOption
from penstock.cli.settings import read_settings
from penstock.errors import PenstockError, ReportError, UsageError

if TYPE_CHECKING:
    from penstock.cli.asking import Found
    from penstock.engine.world import World
    from penstock.pipelines import Gate
    from penstock.rehearsals import Plan, Rehearsal, Scored
    from penstock.store.contract import EvidenceRecord


def gate(
    path: LocationArgument = ".",
    *,
    plan: Annotated[bool, typer.Option("--plan", help="How many examples each gate on evidence needs.")] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="How often each errs when a model is judged against itself.")
    ] = False,
    file: FileOption = None,
    ref: RefOption = None,
    worktree: WorktreeOption = False,
    json_: JsonOption = False,
) -> None:
    """Say what the gates on evidence need, or how often they err, from the project's last evidence.

    Example: penstock gate --plan
    """
    from penstock.cli.asking import Wish, find
    from penstock.cli.wiring import open_world

    if plan == self_test:
        raise UsageError("penstock gate needs either --plan or --self-test: say which")
    with open_world(read_settings()) as world:
        found = find(world.source, Wish(path, file, ref, worktree))
        judged = [(gate, _scored(world, found, gate)) for gate in found.pipeline.gates.values() if gate.by_interval]
    rows = _rows(judged, plan=plan)
    if json_:
        typer.echo(json.dumps([{**asdict(row), "sentence": row.sentence} for row in rows], indent=2))
        return
    _show(rows, _silence(bool(judged)))


def _rows(judged: Sequence[tuple["Gate", "Scored"]], *, plan: bool) -> "list[Plan] | list[Rehearsal]":
    from penstock.rehearsals import plans, rehearsals

    if plan:
        return [row for gate, scored in judged for row in plans(gate, scored)]
    return [row for gate, scored in judged for row in rehearsals(gate, scored)]


def _silence(any_gate: bool) -> str:
    if any_gate:
        return "there is no evidence of this project yet: run it first"
    return "no gate of the file is decided by an interval: give one confidence, or compare it with the champion"


def _show(rows: "Sequence[Plan] | Sequence[Rehearsal]", silence: str) -> None:
    from rich.text import Text

    from penstock.cli.pictures import Picture, Row, safe, stacked
    from penstock.cli.progress import display

    if not rows:
        typer.echo(silence)
        return
    lines = [Row(Text("·", "dim"), (safe(r.gate, "bold"), safe(r.rule)), safe(r.sentence), 1000) for r in rows]
    display(Picture(lambda width: stacked(lines, width)), sys.stdout)


def _scored(world: "World", found: "Found", gate: "Gate") -> "Scored":
    """The scores of the newest package that met the gate's step, and of the newest other on the same test set."""
    from penstock.rehearsals import Scored

    records = world.store.evidence.newest(found.project.id, str(gate.evidence))
    new = next(((r, e) for r in records if (e := _evidence(world, gate, r)) is not None), None)
    if new is None:
        return Scored()
    record, evidence = new
    try:
        scores = evidence.scored(gate.score or "correct")
        others = (r for r in records if r.test_set == record.test_set and r.package != record.package)
        other = next((e for r in others if (e := _evidence(world, gate, r)) is not None), None)
        old = None if other is None or list(other.ids) != list(evidence.ids) else other.scored(scores.name).own
    except ReportError as error:
        raise UsageError(f"gate {gate.name}: {error}") from error
    return Scored(scores.own, old, scores.sign)


def _evidence(world: "World", gate: "Gate", record: "EvidenceRecord") -> Any:
    from penstock.artifacts import Digest
    from penstock.engine.readings import Readings, Wanted
    from penstock.parts import EvidenceFiles

    try:
        files = EvidenceFiles.model_validate(record.files)
        return Readings(world.cache).evidence(files, Digest(record.collected), Wanted.of([gate]))
    except PenstockError:
        return None
