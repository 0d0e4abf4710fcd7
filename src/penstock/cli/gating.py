"""The verb `gate`: what the gates on evidence will be able to say, before a run asks them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.running import FileOption, JsonOption, LocationArgument, RefOption, WorktreeOption
from penstock.cli.settings import read_settings
from penstock.errors import PenstockError, ReportError, UsageError

if TYPE_CHECKING:
    from penstock.cli.asking import Found
    from penstock.engine.readings import Readings, Wanted
    from penstock.engine.world import World
    from penstock.evidence import Evidence
    from penstock.pipelines import Gate
    from penstock.rehearsals import Plan, Rehearsal, Scored
    from penstock.slicings import Slice
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
    from penstock.engine.readings import Readings

    if plan == self_test:
        raise UsageError("penstock gate needs either --plan or --self-test: say which")
    with open_world(read_settings()) as world:
        found = find(world.source, Wish(path, file, ref, worktree))
        readings = Readings(world.cache, keeps=True)
        judged = [_asked(world, readings, found, gate) for gate in _decided(found)]
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
        return "there is no evidence of this project yet that may be told: run it first"
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


def _decided(found: "Found") -> "list[Gate]":
    """The gates of the file that an interval decides, and such members of others."""
    from penstock.rehearsals import rehearsed

    return [one for gate in found.pipeline.gates.values() for one in rehearsed(gate)]


def _asked(world: "World", readings: "Readings", found: "Found", gate: "Gate") -> "tuple[Gate, Scored]":
    """A gate as the next package would be asked, with the scores of the newest that met its step.

    Beside these stand those of the newest other package on the same test set.
    """
    from penstock.engine.readings import Wanted
    from penstock.evidence import paired
    from penstock.rehearsals import Scored

    hides = any(one.evidence == gate.evidence and one.reuse == "enforce" for one in found.pipeline.gates.values())
    records = world.store.evidence.newest(found.project.id, str(gate.evidence))
    wanted = Wanted.of([gate])
    new = next(((r, e) for r in records if (e := _evidence(readings, wanted, r)) is not None), None)
    if new is None:
        return gate, Scored(hides=hides)
    record, evidence = new
    try:
        scores = evidence.scored(gate.score or "correct")
        others = (r for r in records if r.test_set == record.test_set and r.package != record.package)
        other = next((e for r in others if (e := _evidence(readings, wanted.whole, r)) is not None), None)
        pairs = None if other is None else paired(evidence, other)
        is_whole = pairs is not None and len(pairs) == len(evidence)
        old = other.scored(scores.name).own[pairs.old] if is_whole and other is not None and pairs is not None else None
    except ReportError as error:
        raise UsageError(f"gate {gate.name}: {error}") from error
    scored = Scored(scores.own, old, scores.sign, _slices(gate, evidence), hides=hides)
    return _next(world, found, gate, record), scored


def _slices(gate: "Gate", evidence: "Evidence") -> "tuple[Slice, ...]":
    from penstock.slicings import divided

    if gate.slices is None:
        return ()
    return tuple(divided(evidence.sliced(gate.slices.by), gate.slices.min_examples)[0])


def _next(world: "World", found: "Found", gate: "Gate", record: "EvidenceRecord") -> "Gate":
    """The gate with the confidence that the next package must reach, where it enforces a budget."""
    from penstock.comparisons import CONFIDENCE
    from penstock.reuse_budgets import Budget

    if gate.reuse != "enforce":
        return gate
    met = world.store.evidence.met(found.project.id, str(gate.evidence), record.test_set)
    budget = Budget(gate.confidence or CONFIDENCE, tuple(met))
    risk = 1 - budget.confidence_for("the next")
    return gate.model_copy(update={"confidence": 1 - float(f"{risk:.3g}")})


def _evidence(readings: "Readings", wanted: "Wanted", record: "EvidenceRecord") -> "Evidence | None":
    from penstock.artifacts import Digest
    from penstock.engine.examples import files_of

    try:
        files = files_of(record)
        return readings.evidence(files, Digest(record.collected), wanted)
    except PenstockError:
        return None
