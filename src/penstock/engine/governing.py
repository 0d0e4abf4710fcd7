"""Numbers that the file fixes as baselines: which one a gate is held against, what moves it, and who approved that."""

from collections.abc import Iterator

from penstock.baselines import Change, Standing, adopted, apart, fixed_gates, standing
from penstock.engine.baselines import Reference
from penstock.engine.context import RunContext
from penstock.engine.origins import origin_of
from penstock.engine.world import World
from penstock.errors import NotFoundError, StateError
from penstock.gates import Baseline, aggregated, written
from penstock.matrices import judged_steps
from penstock.pipelines import BaselineName, Gate
from penstock.store.contract import Request


def metric_baseline(context: RunContext, gate: Gate, found: Reference) -> Baseline:
    """What a metric is compared with in a run that was found, and in what else the two differ."""
    steps = judged_steps(context.pipeline, gate)
    value = aggregated(gate, context.world.store.runs.metrics(found.run), ())
    differs = apart(origin_of(context, steps), found.origin, steps)
    return Baseline(found.version, str(found.package), value, found.words, differs)


def fixed_baseline(context: RunContext, gate: Gate, fixed: BaselineName) -> Baseline:
    """The number that a gate is held against: the file's own, unless that lowers what stands and nobody approved it."""
    place = next((p for p, leaf in fixed_gates(context.pipeline) if leaf is gate), gate.name)
    number = fixed.fixed or 0.0
    stands = _standing(context.world, context.run.project, place)
    if stands is None or number >= stands.least:
        return Baseline("", "", number, "the fixed baseline", fixed.source or "")
    todo = f"penstock baseline approve {place} --to {written(number)} --reason TEXT"
    note = f"the file lowers it from {written(stands.least)} to {written(number)}, which is not approved: {todo}"
    source = stands.source if stands.least == stands.value else None
    return Baseline("", "", stands.least, "the approved baseline", source or "", note)


def _standing(world: World, project: str, gate: str) -> Standing | None:
    return standing(world.store.baselines.changes(project, gate))


def keep_fixed(context: RunContext) -> None:
    """Let a run that passes move the numbers that its file fixes, in the transaction in which it does.

    Only a whole run of a trusted commit on the default branch does.
    """
    commit, only = context.commit, context.options.get("step")
    if context.scope or commit.dirty or only is not None or commit.default_branch not in commit.branches:
        return
    for change in _moved(context):
        context.world.store.baselines.record(context.run.project, change)


def _moved(context: RunContext) -> Iterator[Change]:
    world, run, sha = context.world, context.run, context.commit.sha
    actor = world.store.requests.get(run.request).actor
    first = world.store.baselines.first_run(run.project, run.version, sha)
    for gate, leaf in fixed_gates(context.pipeline):
        fixed, stands = leaf.baseline, _standing(world, run.project, gate)
        number = 0.0 if fixed is None else fixed.fixed or 0.0
        event, before = adopted(number, stands, first), None if stands is None else stands.value
        if event is not None:
            source = None if fixed is None else fixed.source
            place = (run.id, sha, run.request)
            yield Change(gate, event, number, before, source, None, *place, actor, world.clock.now())


def approve(world: World, request: Request) -> None:
    """Allow a file to lower a fixed baseline, by a record that says who, when, why, from what and to what.

    The record and the end of the request are one transaction. Raises NotFoundError or StateError.
    """
    wanted = request.payload
    project, gate, number = str(wanted["project"]), str(wanted["gate"]), float(wanted["to"])
    with world.store.transaction(durable=True):
        stands = _standing(world, project, gate)
        if stands is None:
            raise NotFoundError(_unknown(world, project, gate))
        if number >= stands.value:
            sentence = f"{written(number)} is not below {written(stands.value)}, which stands for gate {gate}"
            raise StateError(f"{sentence}: only a lower number needs an approval")
        if number == stands.least:
            raise StateError(f"{written(number)} is approved for gate {gate} already")
        made = (None, None, request.id, request.actor, world.clock.now())
        change = Change(gate, "approved", number, stands.value, None, str(wanted["reason"]), *made)
        world.store.baselines.record(project, change)
        world.store.requests.end(request.id, 0, {"gate": gate, "from": stands.value, "to": number})


def _unknown(world: World, project: str, gate: str) -> str:
    known = ", ".join(dict.fromkeys(change.gate for change in world.store.baselines.changes(project))) or "none yet"
    return f'no fixed baseline stands for gate "{gate}": a passed run of the default branch sets one; there is {known}'
